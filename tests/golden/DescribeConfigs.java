// Prints what an Apache Kafka broker answers to DescribeConfigs for itself, for all brokers and for a topic, after the
// dynamic changes below: resource, name, value, source, type, read-only, sensitive, synonyms, all told apart by tabs.
//
// describe_configs.tsv is its output for a fresh Apache Kafka 3.9.1 broker, started with describe_configs.properties,
// to which zookeeper.connect and log.dirs were added:
//   java -cp 'kafka/libs/*' DescribeConfigs.java localhost:28092 > describe_configs.tsv

import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.config.ConfigResource;

public class DescribeConfigs {
    static final ConfigResource TOPIC = new ConfigResource(ConfigResource.Type.TOPIC, "t");
    static final ConfigResource BROKER = new ConfigResource(ConfigResource.Type.BROKER, "1");
    static final ConfigResource ALL_BROKERS = new ConfigResource(ConfigResource.Type.BROKER, "");

    static final Set<String> DIFFERENT_EVERYWHERE = Set.of("zookeeper.connect", "log.dirs");

    public static void main(String[] arguments) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", arguments[0]))) {
            Map<String, String> configs = Map.of(
                "segment.bytes", "99999", "cleanup.policy", "compact", "min.compaction.lag.ms", "5000");
            admin.createTopics(List.of(new NewTopic("t", 1, (short) 1).configs(configs))).all().get();
            set(admin, BROKER, "log.cleaner.threads", "2");
            set(admin, BROKER, "log.retention.bytes", "777");
            set(admin, ALL_BROKERS, "log.cleaner.threads", "3");
            set(admin, ALL_BROKERS, "log.segment.bytes", "123456");
            set(admin, ALL_BROKERS, "log.retention.ms", "5000");
            set(admin, ALL_BROKERS, "foo.bar", "1");
            Thread.sleep(2000); // A broker hears of its dynamic configs from ZooKeeper, some time later.
            describe(admin, BROKER);
            describe(admin, ALL_BROKERS);
            describe(admin, TOPIC);
        }
    }

    static void set(Admin admin, ConfigResource resource, String name, String value) throws Exception {
        AlterConfigOp change = new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(change))).all().get();
    }

    static void describe(Admin admin, ConfigResource resource) throws Exception {
        DescribeConfigsOptions options = new DescribeConfigsOptions().includeSynonyms(true);
        Map<String, ConfigEntry> entries = new TreeMap<>();
        admin.describeConfigs(List.of(resource), options).all().get().get(resource).entries()
            .forEach(entry -> entries.put(entry.name(), entry));
        for (ConfigEntry entry : entries.values()) {
            if (DIFFERENT_EVERYWHERE.contains(entry.name()))
                continue;
            StringBuilder synonyms = new StringBuilder();
            for (ConfigEntry.ConfigSynonym synonym : entry.synonyms())
                synonyms.append(synonym.name() + "=" + synonym.value() + "@" + source(synonym.source()) + ";");
            System.out.println(String.join("\t", resource.type() + "/" + resource.name(), entry.name(), "" + entry.value(),
                source(entry.source()), "" + entry.type(), "" + entry.isReadOnly(), "" + entry.isSensitive(), synonyms));
        }
    }

    static String source(ConfigEntry.ConfigSource source) {
        return source.name().replace("DYNAMIC_TOPIC", "TOPIC").replace("_CONFIG", "");
    }
}
