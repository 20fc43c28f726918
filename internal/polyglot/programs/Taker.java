import static java.nio.charset.StandardCharsets.UTF_8;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Takes records with Kafka's client and JDBC, each event's effect once: Taker URL BROKERS TOPIC GROUP COUNT. */
public class Taker {
    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", args[1], "group.id", args[3],
            "auto.offset.reset", "earliest", "enable.auto.commit", "false", "isolation.level", "read_committed");
        try (Connection connection = DriverManager.getConnection(args[0]);
            KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            connection.setAutoCommit(false);
            consumer.subscribe(List.of(args[2]));
            for (int taken = 0; taken < Integer.parseInt(args[4]);) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofSeconds(1))) {
                    try (var ask = connection.prepareStatement("SELECT outbox.inbox_once('billing', ?, ?)")) {
                        ask.setString(1, new String(record.headers().lastHeader("id").value(), UTF_8));
                        ask.setBoolean(2, record.headers().lastHeader("outrider-dead-topic") != null);
                        try (var answer = ask.executeQuery()) {
                            if (answer.next() && answer.getBoolean(1)) handle(connection, record);
                        }
                    }
                    connection.commit();
                    consumer.commitSync(Map.of(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1)));
                    taken++;
                }
            }
        }
    }

    private static void handle(Connection connection, ConsumerRecord<String, String> record) throws SQLException {
        try (var insert = connection.prepareStatement("INSERT INTO effects (value) VALUES (?)")) {
            insert.setString(1, record.value());
            insert.executeUpdate();
        }
    }
}
