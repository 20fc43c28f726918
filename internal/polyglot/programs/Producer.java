import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.Base64;

/** Writes the events of a file with JDBC: Producer WAY URL TOPIC EVENTS. The file has a line an event, fields apart by tabs, base64, "-" for null. */
public class Producer {
    private static final String INSERT =
        "INSERT INTO outbox.events (topic, key, type, payload, payload_bytes, headers) VALUES (?, ?, ?, ?::json, ?, ?::jsonb)";

    public static void main(String[] args) throws Exception {
        String way = args[0], topic = args[2];
        try (Connection connection = DriverManager.getConnection(args[1])) {
            connection.setAutoCommit(false);
            for (String line : Files.readAllLines(Path.of(args[3]))) {
                String[] event = line.split("\t", -1);
                byte[] bytes = decode(event[3]);
                set(connection, "outbox.traceparent", text(event[5]));
                set(connection, "outbox.headers", text(event[6]));
                if (way.equals("insert")) {
                    try (PreparedStatement insert = connection.prepareStatement(INSERT)) {
                        insert.setString(1, topic);
                        insert.setString(2, text(event[0]));
                        insert.setString(3, text(event[1]));
                        insert.setString(4, text(event[2])); // text to JDBC, so the statement casts it
                        insert.setBytes(5, bytes);
                        insert.setString(6, text(event[4]));
                        insert.executeUpdate();
                    }
                } else {
                    try (PreparedStatement publish = connection.prepareStatement("SELECT outbox.publish(?, ?, ?, ?, ?::jsonb)")) {
                        publish.setString(1, topic);
                        publish.setString(2, text(event[0]));
                        if (bytes != null) {
                            publish.setBytes(3, bytes);
                        } else {
                            publish.setString(3, text(event[2]));
                        }
                        publish.setString(4, text(event[1]));
                        publish.setString(5, text(event[4]));
                        publish.execute();
                    }
                }
                connection.commit();
            }
        }
    }

    private static void set(Connection connection, String name, String value) throws SQLException {
        if (value == null) {
            return;
        }
        try (PreparedStatement set = connection.prepareStatement("SELECT set_config(?, ?, true)")) {
            set.setString(1, name);
            set.setString(2, value);
            set.execute();
        }
    }

    private static byte[] decode(String field) {
        return field.equals("-") ? null : Base64.getDecoder().decode(field);
    }

    private static String text(String field) {
        byte[] decoded = decode(field);
        return decoded == null ? null : new String(decoded, java.nio.charset.StandardCharsets.UTF_8);
    }
}
