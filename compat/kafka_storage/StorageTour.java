// What the Java clients do for the hand-over of data directories: `fill` writes every kind of record, with transactions;
// `read` prints all records of the topics given, one JSON object a line; `put-znodes` writes the persistent nodes on standard
// input to a ZooKeeper, a path and base64 a line, `get-znodes` prints them.

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

public class StorageTour {
    static final ObjectMapper JSON = new ObjectMapper();
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    static String bootstrap;

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[1];
        if (arguments[0].equals("fill")) {
            fill(arguments[2], arguments[3], arguments[4]);
        } else if (arguments[0].equals("put-znodes")) {
            putZnodes();
        } else if (arguments[0].equals("get-znodes")) {
            getZnodes();
        } else {
            read(arguments[2], List.of(arguments).subList(3, arguments.length));
        }
    }

    static KafkaProducer<byte[], byte[]> producer(String codec, String transactionalId) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("compression.type", codec);
        settings.put("linger.ms", 5);
        if (transactionalId != null) {
            settings.put("transactional.id", transactionalId);
            // The open transaction is to outlive all brokers that the directories are handed to.
            settings.put("transaction.timeout.ms", 900000);
        }
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String isolation) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("isolation.level", isolation);
        settings.put("enable.auto.commit", false);
        settings.put("auto.offset.reset", "earliest");
        settings.put("group.id", "storage-tour");
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    static ProducerRecord<byte[], byte[]> record(String topic, int partition, int n, String key, String value) {
        ProducerRecord<byte[], byte[]> record =
            new ProducerRecord<>(topic, partition, System.currentTimeMillis() - 1000 + n, bytes(key), bytes(value));
        record.headers().add("n", bytes("" + n)).add("null", null);
        return record;
    }

    /** Records of each codec; transactions that commit, abort and stay open; superseded keys; committed offsets. */
    static void fill(String plain, String transactional, String compacted) throws Exception {
        for (String codec : CODECS) {
            try (KafkaProducer<byte[], byte[]> producer = producer(codec, null)) {
                for (int n = 0; n < 200; n++) {
                    String key = n % 7 == 0 ? null : "key " + n;
                    String value = n % 11 == 0 ? null : (codec + " value " + n + " ").repeat(1 + n % 5);
                    producer.send(record(plain, n % 2, n, key, value));
                    producer.send(record(compacted, 0, n, "key " + n % 5, n % 13 == 0 ? null : codec + " " + n));
                    if (n % 20 == 0) {
                        producer.flush();
                    }
                }
            }
        }
        try (KafkaProducer<byte[], byte[]> producer = producer("lz4", "tour")) {
            producer.initTransactions();
            for (int txn = 0; txn < 12; txn++) {
                producer.beginTransaction();
                for (int n = 0; n < 10; n++) {
                    producer.send(record(transactional, n % 2, n, "key", "transaction " + txn + " record " + n));
                }
                if (txn == 0) {
                    producer.sendOffsetsToTransaction(
                        Map.of(new TopicPartition(plain, 0), new OffsetAndMetadata(17, "in a transaction")),
                        new org.apache.kafka.clients.consumer.ConsumerGroupMetadata("tour-group"));
                }
                producer.flush();
                if (txn % 3 == 1) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
        KafkaProducer<byte[], byte[]> open = producer("none", "open");
        open.initTransactions();
        open.beginTransaction();
        open.send(record(transactional, 0, 0, "open", "never decided")).get();
        try (KafkaProducer<byte[], byte[]> producer = producer("none", null)) {
            producer.send(record(transactional, 0, 1, "after", "behind the open transaction")).get();
        }
        System.out.println("filled");
        System.out.flush();
        Runtime.getRuntime().halt(0);  // Closing the producer would abort its transaction.
    }

    static void read(String isolation, List<String> topics) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(isolation)) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (String topic : topics) {
                consumer.partitionsFor(topic).forEach(each -> partitions.add(new TopicPartition(topic, each.partition())));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(each -> consumer.position(each) < ends.get(each))) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    print(record);
                }
            }
            for (TopicPartition each : partitions) {
                Map<String, Object> end = new LinkedHashMap<>();
                end.put("end", ends.get(each));
                end.put("topic", each.topic());
                end.put("partition", each.partition());
                System.out.println(JSON.writeValueAsString(end));
            }
        }
    }

    static void print(ConsumerRecord<byte[], byte[]> record) throws Exception {
        List<Object> headers = new ArrayList<>();
        record.headers().forEach(each -> headers.add(java.util.Arrays.asList(each.key(), text(each.value()))));
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("topic", record.topic());
        line.put("partition", record.partition());
        line.put("offset", record.offset());
        line.put("timestamp", record.timestamp());
        line.put("key", text(record.key()));
        line.put("value", text(record.value()));
        line.put("headers", headers);
        System.out.println(JSON.writeValueAsString(line));
    }

    static ZooKeeper zookeeper() throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper zookeeper = new ZooKeeper(bootstrap, 20000, event -> {
            if (event.getState() == Watcher.Event.KeeperState.SyncConnected) {
                connected.countDown();
            }
        });
        connected.await();
        return zookeeper;
    }

    static void putZnodes() throws Exception {
        try (ZooKeeper zookeeper = zookeeper(); BufferedReader lines = new BufferedReader(new InputStreamReader(System.in))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                String[] parts = line.split("\t");
                byte[] data = parts[1].equals("null") ? null : Base64.getDecoder().decode(parts[1]);
                if (zookeeper.exists(parts[0], false) == null) {
                    zookeeper.create(parts[0], data, ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
                } else {
                    zookeeper.setData(parts[0], data, -1);
                }
            }
        }
    }

    static void getZnodes() throws Exception {
        try (ZooKeeper zookeeper = zookeeper()) {
            ArrayDeque<String> waiting = new ArrayDeque<>(zookeeper.getChildren("/", false));
            while (!waiting.isEmpty()) {
                String path = waiting.poll();
                Stat stat = new Stat();
                byte[] data = zookeeper.getData("/" + path, false, stat);
                if (stat.getEphemeralOwner() == 0 && !path.equals("zookeeper")) {
                    System.out.println("/" + path + "\t" + text(data));
                    zookeeper.getChildren("/" + path, false).forEach(child -> waiting.add(path + "/" + child));
                }
            }
        }
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : Base64.getEncoder().encodeToString(bytes);
    }
}
