import java.util.Arrays;
import java.util.Locale;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Runs what it is told to, until its standard input is closed. It prints each state that it enters.
 *
 * <p>{@code java Application.java <bootstrap> <application id> <guarantee> <state directory> <instance id or -> <part>...},
 * where a part is one of
 *
 * <ul>
 *   <li>{@code count:<lines>:<counts>}: counts the words of one topic into another;
 *   <li>{@code join:<stream>:<table>:<joined>}: joins each record with what the table says of its key.
 * </ul>
 */
public class Application {
    private static final Consumed<String, String> STRINGS = Consumed.with(Serdes.String(), Serdes.String());

    private static void count(StreamsBuilder builder, String lines, String counts) {
        builder.stream(lines, STRINGS)
                .flatMapValues(line -> Arrays.asList(line.toLowerCase(Locale.ROOT).split(" ")))
                .groupBy((key, word) -> word, Grouped.with(Serdes.String(), Serdes.String()))
                .count()
                .toStream()
                .mapValues(count -> Long.toString(count))
                .to(counts, Produced.with(Serdes.String(), Serdes.String()));
    }

    private static void join(StreamsBuilder builder, String stream, String table, String joined) {
        KTable<String, String> known = builder.table(table, STRINGS);
        builder.stream(stream, STRINGS)
                .join(known, (value, of) -> value + " " + of, Joined.with(Serdes.String(), Serdes.String(), Serdes.String()))
                .to(joined, Produced.with(Serdes.String(), Serdes.String()));
    }

    private static Properties config(String[] args) {
        Properties config = new Properties();
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, args[1]);
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, args[2]);
        config.put(StreamsConfig.STATE_DIR_CONFIG, args[3]);
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 200);
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        // Each change of a count is written, and not only the last one before a commit.
        config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        config.put("auto.offset.reset", "earliest");
        config.put("reconnect.backoff.max.ms", 200);
        if (!args[4].equals("-")) {
            config.put("group.instance.id", args[4]);
        }
        return config;
    }

    public static void main(String[] args) throws Exception {
        StreamsBuilder builder = new StreamsBuilder();
        for (String part : Arrays.copyOfRange(args, 5, args.length)) {
            String[] words = part.split(":");
            if (words[0].equals("count")) {
                count(builder, words[1], words[2]);
            } else {
                join(builder, words[1], words[2], words[3]);
            }
        }
        CountDownLatch failed = new CountDownLatch(1);
        try (KafkaStreams streams = new KafkaStreams(builder.build(), config(args))) {
            streams.setStateListener((now, before) -> {
                System.out.println(now);
                if (now == KafkaStreams.State.ERROR) {
                    failed.countDown();
                }
            });
            streams.start();
            while (System.in.read() != -1 && failed.getCount() > 0) {
                // Whoever started this program ends it by closing the pipe.
            }
        }
    }
}
