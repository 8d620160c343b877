package tour;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.Supplier;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import reactor.core.publisher.Flux;

/**
 * Numbers go from the source through a topic to a function that squares them, and through a second topic to a sink.
 *
 * <p>The sink prints one line for each message. The program ends by itself: with 0 once the sink has seen every
 * message, with 1 when that takes longer than a minute.
 */
@SpringBootApplication
public class StreamTour {
    private static final int MESSAGES = 100;
    private static final CountDownLatch expected = new CountDownLatch(MESSAGES);

    @Bean
    public Supplier<Flux<String>> source() {
        return () -> Flux.range(1, MESSAGES).map(String::valueOf);
    }

    @Bean
    public Function<String, String> square() {
        return number -> number + " squared is " + Long.parseLong(number) * Long.parseLong(number);
    }

    @Bean
    public Consumer<String> sink() {
        return line -> {
            System.out.println("sink: " + line);
            expected.countDown();
        };
    }

    public static void main(String[] args) throws InterruptedException {
        var context = SpringApplication.run(StreamTour.class, args);
        boolean complete = expected.await(60, TimeUnit.SECONDS);
        int status = SpringApplication.exit(context);
        System.exit(complete ? status : 1);
    }
}
