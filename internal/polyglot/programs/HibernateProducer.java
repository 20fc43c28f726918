import jakarta.persistence.Column;
import jakarta.persistence.Entity;
import jakarta.persistence.Id;
import jakarta.persistence.Table;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.UUID;
import org.hibernate.SessionFactory;
import org.hibernate.annotations.ColumnTransformer;
import org.hibernate.annotations.Generated;
import org.hibernate.cfg.Configuration;

/** Writes the events of a file with Hibernate: HibernateProducer WAY URL TOPIC EVENTS; the file as for Producer. */
public class HibernateProducer {

    /** Leaves tx, seq and created_at to the database, and has it make the id. */
    @Entity(name = "OutboxEvent")
    @Table(schema = "outbox", name = "events")
    public static class OutboxEvent {
        @Id @Generated
        public UUID id;
        public String topic;
        public String key;
        public String type;
        @ColumnTransformer(write = "?::json") // text to Hibernate, which keeps it as it is
        public String payload;
        @Column(name = "payload_bytes")
        public byte[] bytes;
        @ColumnTransformer(write = "?::jsonb")
        public String headers;
    }

    public static void main(String[] args) throws Exception {
        Configuration configuration = new Configuration()
            .addAnnotatedClass(OutboxEvent.class)
            .setProperty("hibernate.connection.url", args[1])
            .setProperty("hibernate.globally_quoted_identifiers", "true");
        try (SessionFactory sessions = configuration.buildSessionFactory()) {
            for (String line : Files.readAllLines(Path.of(args[3]))) {
                String[] field = line.split("\t", -1);
                sessions.inTransaction(session -> {
                    set(session, "outbox.traceparent", text(field[5]));
                    set(session, "outbox.headers", text(field[6]));
                    OutboxEvent event = new OutboxEvent();
                    event.topic = args[2];
                    event.key = text(field[0]);
                    event.type = text(field[1]);
                    event.payload = text(field[2]);
                    event.bytes = decode(field[3]);
                    event.headers = text(field[4]);
                    session.persist(event);
                });
            }
        }
    }

    private static void set(org.hibernate.Session session, String name, String value) {
        if (value != null) {
            session.createNativeQuery("SELECT set_config(:name, :value, true)", String.class)
                .setParameter("name", name).setParameter("value", value).getSingleResult();
        }
    }

    private static byte[] decode(String field) {
        return field.equals("-") ? null : Base64.getDecoder().decode(field);
    }

    private static String text(String field) {
        byte[] decoded = decode(field);
        return decoded == null ? null : new String(decoded, StandardCharsets.UTF_8);
    }
}
