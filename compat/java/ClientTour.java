import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * A tour of what the Java clients do with a broker; {@code java ClientTour.java <bootstrap> <prefix of names>}.
 *
 * <p>Each scene prints one line of JSON, {@code {"scene": name, "result": what the client saw}}. Nothing is judged
 * here: test_java_client.py knows what each scene must have seen.
 */
public class ClientTour {
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    private static final int RECORDS_PER_CODEC = 10;
    private static final long FIRST_TIMESTAMP_MS = 1_600_000_000_000L;
    private static final Duration POLL = Duration.ofMillis(100);
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    private final ObjectMapper json = new ObjectMapper();
    private final String bootstrap;
    private final String logTopic;
    private final String groupTopic;
    private final String group;
    private final String transactionTopic;
    private final Admin admin;

    private ClientTour(String bootstrap, String prefix) {
        this.bootstrap = bootstrap;
        this.logTopic = prefix + "-log";
        this.groupTopic = prefix + "-group";
        this.group = prefix + "-readers";
        this.transactionTopic = prefix + "-transactions";
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    public static void main(String[] args) throws Exception {
        ClientTour tour = new ClientTour(args[0], args[1]);
        tour.show("cluster", tour.cluster());
        tour.show("topics", tour.topics());
        tour.show("produced", tour.produced());
        tour.show("consumed", tour.consumed());
        tour.show("places", tour.places());
        tour.show("listedOffsets", tour.listedOffsets());
        tour.show("configs", tour.configs());
        tour.show("group", tour.groupOfTwo());
        tour.show("emptyGroup", tour.emptyGroup());
        tour.show("transactions", tour.transactions());
        tour.show("deletedTopics", tour.deletedTopics());
        tour.admin.close();
    }

    private void show(String scene, Object result) throws Exception {
        System.out.println(json.writeValueAsString(Map.of("scene", scene, "result", result)));
    }

    private Map<String, Object> cluster() throws Exception {
        var cluster = admin.describeCluster();
        List<String> nodes = new ArrayList<>();
        cluster.nodes().get().forEach(node -> nodes.add(node.host() + ":" + node.port()));
        boolean controllerIsListed = cluster.nodes().get().contains(cluster.controller().get());
        return Map.of("id", cluster.clusterId().get(), "nodes", nodes, "controllerIsListed", controllerIsListed);
    }

    private Map<String, Object> topics() throws Exception {
        // The log holds records of the year 2020 that nobody may delete meanwhile.
        Map<String, String> keepAll = Map.of("retention.ms", "-1", "cleanup.policy", "delete");
        NewTopic log = new NewTopic(logTopic, 1, (short) 1).configs(keepAll);
        NewTopic forGroup = new NewTopic(groupTopic, 4, (short) 1);
        var created = admin.createTopics(List.of(log, forGroup));
        created.all().get();
        TopicDescription described = admin.describeTopics(List.of(groupTopic)).allTopicNames().get().get(groupTopic);
        Map<String, Object> seen = new TreeMap<>();
        seen.put("createdPartitions", created.numPartitions(groupTopic).get());
        seen.put("createdReplicationFactor", created.replicationFactor(groupTopic).get());
        seen.put("createdRetention", created.config(logTopic).get().get("retention.ms").value());
        seen.put("describedPartitions", described.partitions().size());
        seen.put("sameTopicId", described.topicId().equals(created.topicId(groupTopic).get()));
        seen.put("createdTwice", failure(admin.createTopics(List.of(log)).all()));
        return seen;
    }

    /** Sends with the idempotent producer that is the default; the offsets that the broker acknowledged, by codec. */
    private Map<String, List<Long>> produced() throws Exception {
        Map<String, List<Long>> offsets = new TreeMap<>();
        for (int index = 0; index < CODECS.size(); index++) {
            String codec = CODECS.get(index);
            Map<String, Object> settings = Map.of("compression.type", codec, "linger.ms", 20);
            try (KafkaProducer<String, String> producer = producer(settings)) {
                List<Future<RecordMetadata>> acks = new ArrayList<>();
                for (int n = 0; n < RECORDS_PER_CODEC; n++) {
                    long timestampMs = FIRST_TIMESTAMP_MS + index * RECORDS_PER_CODEC + n;
                    String key = codec + " key " + n;
                    String value = codec + " value " + n;
                    var record = new ProducerRecord<>(logTopic, 0, timestampMs, key, value);
                    record.headers().add("codec", codec.getBytes(StandardCharsets.UTF_8)).add("none", null);
                    acks.add(producer.send(record));
                }
                List<Long> acked = new ArrayList<>();
                for (Future<RecordMetadata> ack : acks) {
                    acked.add(ack.get().offset());
                }
                offsets.put(codec, acked);
            }
        }
        return offsets;
    }

    private List<Map<String, Object>> consumed() {
        List<Map<String, Object>> seen = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer = consumer(Map.of())) {
            TopicPartition partition = new TopicPartition(logTopic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            pollUntil(() -> seen.size() >= CODECS.size() * RECORDS_PER_CODEC, () -> {
                for (ConsumerRecord<String, String> record : consumer.poll(POLL)) {
                    seen.add(shown(record));
                }
            });
        }
        return seen;
    }

    private static Map<String, Object> shown(ConsumerRecord<String, String> record) {
        Map<String, String> headers = new HashMap<>();
        for (Header header : record.headers()) {
            byte[] value = header.value();
            headers.put(header.key(), value == null ? null : new String(value, StandardCharsets.UTF_8));
        }
        return Map.of(
                "offset", record.offset(),
                "timestamp", record.timestamp(),
                "key", record.key(),
                "value", record.value(),
                "headers", headers);
    }

    private Map<String, Object> places() {
        Map<String, Object> seen = new TreeMap<>();
        try (KafkaConsumer<String, String> consumer = consumer(Map.of("max.poll.records", 1))) {
            TopicPartition partition = new TopicPartition(logTopic, 0);
            consumer.assign(List.of(partition));
            consumer.seek(partition, 23);
            List<Long> read = new ArrayList<>();
            pollUntil(() -> !read.isEmpty(), () -> consumer.poll(POLL).forEach(record -> read.add(record.offset())));
            seen.put("firstAfterSeek", read.get(0));
            seen.put("position", consumer.position(partition));
            seen.put("beginning", consumer.beginningOffsets(List.of(partition)).get(partition));
            seen.put("end", consumer.endOffsets(List.of(partition)).get(partition));
            var atTime = consumer.offsetsForTimes(Map.of(partition, FIRST_TIMESTAMP_MS + 31)).get(partition);
            seen.put("atTime", List.of(atTime.offset(), atTime.timestamp()));
            var tooLate = consumer.offsetsForTimes(Map.of(partition, FIRST_TIMESTAMP_MS + 1000));
            seen.put("afterTheLast", tooLate.get(partition) == null ? "none" : "some");
        }
        return seen;
    }

    private Map<String, Object> listedOffsets() throws Exception {
        TopicPartition partition = new TopicPartition(logTopic, 0);
        Map<String, OffsetSpec> specs = Map.of(
                "earliest", OffsetSpec.earliest(),
                "latest", OffsetSpec.latest(),
                "maxTimestamp", OffsetSpec.maxTimestamp(),
                "forTimestamp", OffsetSpec.forTimestamp(FIRST_TIMESTAMP_MS + 12));
        Map<String, Object> seen = new TreeMap<>();
        for (Map.Entry<String, OffsetSpec> spec : specs.entrySet()) {
            var found = admin.listOffsets(Map.of(partition, spec.getValue())).partitionResult(partition).get();
            seen.put(spec.getKey(), List.of(found.offset(), found.timestamp()));
        }
        return seen;
    }

    private Map<String, Object> configs() throws Exception {
        Map<String, Object> seen = new TreeMap<>();
        alter("cleanup.policy", "compact", AlterConfigOp.OpType.APPEND);
        alter("max.message.bytes", "2000000", AlterConfigOp.OpType.SET);
        seen.put("changed", described("cleanup.policy", "max.message.bytes", "retention.ms"));
        alter("cleanup.policy", "compact", AlterConfigOp.OpType.SUBTRACT);
        alter("max.message.bytes", "", AlterConfigOp.OpType.DELETE);
        seen.put("restored", described("cleanup.policy", "max.message.bytes", "retention.ms"));
        seen.put("refused", failure(altering("retention.ms", "soon", AlterConfigOp.OpType.SET)));
        return seen;
    }

    private void alter(String name, String value, AlterConfigOp.OpType operation) throws Exception {
        altering(name, value, operation).get();
    }

    private Future<Void> altering(String name, String value, AlterConfigOp.OpType operation) {
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, logTopic);
        AlterConfigOp change = new AlterConfigOp(new ConfigEntry(name, value), operation);
        return admin.incrementalAlterConfigs(Map.of(topic, List.of(change))).all();
    }

    private Map<String, List<String>> described(String... names) throws Exception {
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, logTopic);
        Config config = admin.describeConfigs(List.of(topic)).all().get().get(topic);
        Map<String, List<String>> seen = new TreeMap<>();
        for (String name : names) {
            seen.put(name, List.of(config.get(name).value(), config.get(name).source().name()));
        }
        return seen;
    }

    /** Two cooperative consumers: the second takes half of the first one's partitions, and the first keeps the rest. */
    private Map<String, Object> groupOfTwo() throws Exception {
        Map<String, Object> seen = new TreeMap<>();
        Map<Integer, List<Long>> read = new TreeMap<>();
        List<Integer> revoked = new ArrayList<>();
        List<Integer> lost = new ArrayList<>();
        ConsumerRebalanceListener listener = new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                partitions.forEach(partition -> revoked.add(partition.partition()));
            }

            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}

            @Override
            public void onPartitionsLost(Collection<TopicPartition> partitions) {
                partitions.forEach(partition -> lost.add(partition.partition()));
            }
        };
        Map<String, Object> cooperative = Map.of(
                "group.id", group,
                "auto.offset.reset", "earliest",
                "enable.auto.commit", false,
                "partition.assignment.strategy", CooperativeStickyAssignor.class.getName());
        sendToEachPartition(0);
        try (KafkaConsumer<String, String> first = consumer(cooperative);
                KafkaConsumer<String, String> second = consumer(cooperative)) {
            first.subscribe(List.of(groupTopic), listener);
            pollUntil(() -> count(read) == 40, () -> collect(first, read));
            seen.put("firstAlone", first.assignment().size());
            first.commitSync();

            second.subscribe(List.of(groupTopic));
            pollUntil(() -> first.assignment().size() == 2 && second.assignment().size() == 2, () -> {
                collect(first, read);
                collect(second, read);
            });
            var all = new TreeSet<Integer>();
            first.assignment().forEach(partition -> all.add(partition.partition()));
            second.assignment().forEach(partition -> all.add(partition.partition()));
            seen.put("together", all);
            seen.put("revokedCount", revoked.size());
            seen.put("lostCount", lost.size());

            sendToEachPartition(10);
            pollUntil(() -> count(read) == 80, () -> {
                collect(first, read);
                collect(second, read);
            });
            first.commitSync();
            second.commitSync();
            seen.put("read", read);

            ConsumerGroupDescription description = describedGroup();
            seen.put("members", description.members().size());
            seen.put("assignor", description.partitionAssignor());
            seen.put("state", String.valueOf(description.state()));
            seen.put("deletedWhileAlive", failure(admin.deleteConsumerGroups(List.of(group)).all()));
        }
        return seen;
    }

    private void sendToEachPartition(int first) throws Exception {
        try (KafkaProducer<String, String> producer = producer(Map.of())) {
            for (int partition = 0; partition < 4; partition++) {
                for (int n = first; n < first + 10; n++) {
                    producer.send(new ProducerRecord<>(groupTopic, partition, "key", "value " + n));
                }
            }
        }
    }

    private static void collect(KafkaConsumer<String, String> consumer, Map<Integer, List<Long>> read) {
        for (ConsumerRecord<String, String> record : consumer.poll(POLL)) {
            read.computeIfAbsent(record.partition(), partition -> new ArrayList<>()).add(record.offset());
        }
    }

    private static int count(Map<Integer, List<Long>> read) {
        return read.values().stream().mapToInt(List::size).sum();
    }

    private Map<String, Object> emptyGroup() throws Exception {
        Map<String, Object> seen = new TreeMap<>();
        seen.put("state", String.valueOf(describedGroup().state()));
        var listed = admin.listConsumerGroups().all().get();
        seen.put("listed", listed.stream().anyMatch(listing -> listing.groupId().equals(group)));
        seen.put("committed", committed());
        var byHand = Map.of(new TopicPartition(groupTopic, 2), new OffsetAndMetadata(5, "by hand"));
        admin.alterConsumerGroupOffsets(group, byHand).all().get();
        seen.put("altered", committed());
        admin.deleteConsumerGroups(List.of(group)).all().get();
        seen.put("committedAfterDeletion", committed());
        seen.put("deletedTwice", failure(admin.deleteConsumerGroups(List.of(group)).all()));
        return seen;
    }

    private ConsumerGroupDescription describedGroup() throws Exception {
        return admin.describeConsumerGroups(List.of(group)).all().get().get(group);
    }

    private Map<Integer, Long> committed() throws Exception {
        Map<Integer, Long> offsets = new TreeMap<>();
        admin.listConsumerGroupOffsets(group)
                .partitionsToOffsetAndMetadata()
                .get()
                .forEach((partition, offset) -> offsets.put(partition.partition(), offset.offset()));
        return offsets;
    }

    /** Commits, aborts, moves offsets with records, looks at it all with the admin client, and is fenced. */
    private Map<String, Object> transactions() throws Exception {
        Map<String, Object> seen = new TreeMap<>();
        String id = transactionTopic + "-id";
        String readers = transactionTopic + "-readers";
        TopicPartition partition = new TopicPartition(transactionTopic, 0);
        admin.createTopics(List.of(new NewTopic(transactionTopic, 1, (short) 1))).all().get();
        KafkaProducer<String, String> first = producer(Map.of("transactional.id", id));
        first.initTransactions();
        for (String value : List.of("kept", "dropped", "kept too")) {
            first.beginTransaction();
            first.send(new ProducerRecord<>(transactionTopic, "key", value));
            if (value.equals("dropped")) {
                first.flush();
                first.abortTransaction();
            } else {
                Map<TopicPartition, OffsetAndMetadata> offsets = Map.of(partition, new OffsetAndMetadata(value.length()));
                first.sendOffsetsToTransaction(offsets, new ConsumerGroupMetadata(readers));
                first.commitTransaction();
            }
        }
        seen.put("committed", transactionValues("read_committed"));
        seen.put("uncommitted", transactionValues("read_uncommitted"));
        var offsets = admin.listConsumerGroupOffsets(readers).partitionsToOffsetAndMetadata().get();
        seen.put("offset", offsets.get(partition).offset());
        seen.put("stateAfter", String.valueOf(describedTransaction(id).state()));

        first.beginTransaction();
        first.send(new ProducerRecord<>(transactionTopic, "key", "zombie")).get();
        var open = describedTransaction(id);
        seen.put("open", List.of(String.valueOf(open.state()), open.topicPartitions().contains(partition)));
        // Three ends of a transaction: with transaction version 2 each has raised the epoch.
        seen.put("epoch", open.producerEpoch());
        seen.put("listed", admin.listTransactions().all().get().stream().anyMatch(each -> each.transactionalId().equals(id)));
        var producers = admin.describeProducers(List.of(partition)).partitionResult(partition).get().activeProducers();
        seen.put("startOffset", producers.get(0).currentTransactionStartOffset().getAsLong());
        var latest = Map.of(partition, OffsetSpec.latest());
        var committedOnly = new ListOffsetsOptions(IsolationLevel.READ_COMMITTED);
        seen.put("stableEnd", admin.listOffsets(latest, committedOnly).partitionResult(partition).get().offset());

        KafkaProducer<String, String> second = producer(Map.of("transactional.id", id));
        second.initTransactions();
        try {
            first.commitTransaction();
            seen.put("fenced", "none");
        } catch (ProducerFencedException | InvalidProducerEpochException fenced) {
            seen.put("fenced", "fenced");
        }
        first.close(Duration.ZERO);
        second.beginTransaction();
        second.send(new ProducerRecord<>(transactionTopic, "key", "heir"));
        second.commitTransaction();
        second.close();
        seen.put("inTheEnd", transactionValues("read_committed"));
        KafkaProducer<String, String> slow = producer(Map.of("transactional.id", id, "transaction.timeout.ms", 900_001));
        try {
            slow.initTransactions();
            seen.put("tooSlow", "none");
        } catch (KafkaException refused) {
            Throwable cause = refused.getCause() == null ? refused : refused.getCause();
            seen.put("tooSlow", cause.getClass().getSimpleName());
        }
        slow.close(Duration.ZERO);
        admin.deleteTopics(List.of(transactionTopic)).all().get();
        return seen;
    }

    private TransactionDescription describedTransaction(String id) throws Exception {
        return admin.describeTransactions(List.of(id)).description(id).get();
    }

    private List<String> transactionValues(String isolationLevel) {
        List<String> seen = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer = consumer(Map.of("isolation.level", isolationLevel))) {
            TopicPartition partition = new TopicPartition(transactionTopic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            pollUntil(() -> consumer.position(partition) >= end, () ->
                    consumer.poll(POLL).forEach(record -> seen.add(record.value())));
        }
        return seen;
    }

    private Map<String, Object> deletedTopics() throws Exception {
        admin.deleteTopics(List.of(logTopic, groupTopic)).all().get();
        pollUntil(() -> listedTopics() == 0, () -> {});
        return Map.of("deletedTwice", failure(admin.deleteTopics(List.of(logTopic)).all()));
    }

    private long listedTopics() {
        try {
            var ours = List.of(logTopic, groupTopic);
            return admin.listTopics().names().get().stream().filter(ours::contains).count();
        } catch (InterruptedException | ExecutionException failure) {
            throw new IllegalStateException(failure);
        }
    }

    private KafkaProducer<String, String> producer(Map<String, Object> settings) {
        Map<String, Object> config = new HashMap<>(settings);
        config.put("bootstrap.servers", bootstrap);
        return new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
    }

    private KafkaConsumer<String, String> consumer(Map<String, Object> settings) {
        Map<String, Object> config = new HashMap<>(settings);
        config.put("bootstrap.servers", bootstrap);
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    /** Repeats {@code step} until {@code done}; an exception when that takes longer than PATIENCE. */
    private static void pollUntil(BooleanSupplier done, Runnable step) {
        long deadlineNs = System.nanoTime() + PATIENCE.toNanos();
        while (!done.getAsBoolean()) {
            if (System.nanoTime() > deadlineNs) {
                throw new IllegalStateException("not done within " + PATIENCE);
            }
            step.run();
        }
    }

    /** The name of the exception a call fails with, or "none". */
    private static String failure(Future<?> call) throws InterruptedException {
        try {
            call.get();
            return "none";
        } catch (ExecutionException failed) {
            return failed.getCause().getClass().getSimpleName();
        }
    }
}
