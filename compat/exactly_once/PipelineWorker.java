import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Copies records of one topic to another in transactions, offsets included, until it is killed. Each turn of its loop
 * touches the pulse file; what an abort does not mend ends it.
 *
 * <p>{@code java PipelineWorker <bootstrap> <source> <sink> <group> <transactional id> <instance id or -> <pulse file>}
 */
public class PipelineWorker {
    private static final int SESSION_MS = 3_000;
    private static final int TRANSACTION_TIMEOUT_MS = 6_000;
    private static final int RECORDS_A_TRANSACTION = 50;

    private static Properties common(String bootstrap) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("reconnect.backoff.ms", 20);
        config.put("reconnect.backoff.max.ms", 200);
        config.put("default.api.timeout.ms", 5_000);
        config.put("request.timeout.ms", 5_000);
        return config;
    }

    private static KafkaProducer<byte[], byte[]> producer(String bootstrap, String transactionalId) {
        Properties config = common(bootstrap);
        config.remove("default.api.timeout.ms");
        config.put("transactional.id", transactionalId);
        config.put("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS);
        config.put("delivery.timeout.ms", TRANSACTION_TIMEOUT_MS);
        config.put("max.block.ms", 5_000);
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, String group, String instanceId) {
        Properties config = common(bootstrap);
        config.put("group.id", group);
        if (!instanceId.equals("-")) {
            config.put("group.instance.id", instanceId);
        }
        config.put("session.timeout.ms", SESSION_MS);
        config.put("heartbeat.interval.ms", 300);
        config.put("isolation.level", "read_committed");
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", false);
        config.put("max.poll.records", RECORDS_A_TRANSACTION);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static Map<TopicPartition, OffsetAndMetadata> following(ConsumerRecords<byte[], byte[]> records) {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (TopicPartition partition : records.partitions()) {
            List<ConsumerRecord<byte[], byte[]>> of = records.records(partition);
            offsets.put(partition, new OffsetAndMetadata(of.get(of.size() - 1).offset() + 1));
        }
        return offsets;
    }

    /** Where the group stands: what was copied in a transaction that was aborted is read again. */
    private static void rewind(KafkaConsumer<byte[], byte[]> consumer, Set<TopicPartition> partitions) {
        consumer.committed(partitions).forEach((partition, committed) -> {
            if (consumer.assignment().contains(partition)) {
                consumer.seek(partition, committed == null ? 0 : committed.offset());
            }
        });
    }

    /** Copies what one poll brings. Throws what an abort does not mend. */
    private static void turn(KafkaConsumer<byte[], byte[]> consumer, KafkaProducer<byte[], byte[]> producer, String sink) {
        ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(100));
        if (records.isEmpty()) {
            return;
        }
        producer.beginTransaction();
        try {
            for (ConsumerRecord<byte[], byte[]> each : records) {
                producer.send(new ProducerRecord<>(sink, each.partition(), each.key(), each.value()));
            }
            producer.sendOffsetsToTransaction(following(records), consumer.groupMetadata());
            producer.commitTransaction();
        } catch (ProducerFencedException | FencedInstanceIdException fenced) {
            throw fenced;
        } catch (KafkaException failed) {
            producer.abortTransaction();
            rewind(consumer, records.partitions());
        }
    }

    public static void main(String[] args) throws Exception {
        Path pulse = Path.of(args[6]);
        KafkaProducer<byte[], byte[]> producer = producer(args[0], args[4]);
        KafkaConsumer<byte[], byte[]> consumer = consumer(args[0], args[3], args[5]);
        try {
            producer.initTransactions();
            consumer.subscribe(List.of(args[1]));
            while (true) {
                Files.setLastModifiedTime(pulse, FileTime.fromMillis(System.currentTimeMillis()));
                turn(consumer, producer, args[2]);
            }
        } catch (KafkaException ended) {
            System.err.println(args[4] + ": " + ended);
            // Closing would wait for a broker that may be dead, and leave the group, which a process that dies does not.
            Runtime.getRuntime().halt(1);
        }
    }
}
