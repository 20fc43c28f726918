import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads topics with the Java client, and writes a line for each record, and one for each position
 * that has moved. Arguments: brokers, isolation level, topics. It ends with its input.
 */
public class JavaReader {
  public static void main(String[] args) throws Exception {
    Properties p = new Properties();
    p.put("bootstrap.servers", args[0]);
    p.put("isolation.level", args[1]);
    p.put("enable.auto.commit", "false");
    p.put("auto.offset.reset", "earliest");
    PrintStream out = new PrintStream(System.out, false, StandardCharsets.US_ASCII);
    Thread end = new Thread(() -> {
      try {
        while (System.in.read() >= 0) {}
      } catch (Exception e) {
        // as an end
      }
      Runtime.getRuntime().halt(0);
    });
    end.setDaemon(true);
    end.start();
    try (KafkaConsumer<byte[], byte[]> c = new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
      List<TopicPartition> all = new ArrayList<>();
      for (int i = 2; i < args.length; i++) {
        for (PartitionInfo info : c.partitionsFor(args[i])) {
          all.add(new TopicPartition(info.topic(), info.partition()));
        }
      }
      c.assign(all);
      c.seekToBeginning(all);
      Map<TopicPartition, Long> told = new HashMap<>();
      while (true) {
        for (ConsumerRecord<byte[], byte[]> r : c.poll(Duration.ofMillis(200))) {
          StringBuilder line = new StringBuilder("R ").append(r.topic()).append(' ').append(r.partition()).append(' ').append(r.offset())
              .append(' ').append(r.timestamp()).append(' ').append(text(r.key())).append(' ').append(text(r.value()));
          for (Header h : r.headers()) {
            line.append(' ').append(text(h.key().getBytes(StandardCharsets.UTF_8))).append(' ').append(text(h.value()));
          }
          out.println(line);
        }
        for (TopicPartition at : all) {
          long position = c.position(at);
          if (!Long.valueOf(position).equals(told.put(at, position))) {
            out.println("P " + at.topic() + " " + at.partition() + " " + position);
          }
        }
        out.flush();
      }
    }
  }

  /** Base64, "-" for null, "=" for nothing: never empty, never with a space. */
  private static String text(byte[] b) {
    if (b == null) {
      return "-";
    }
    return b.length == 0 ? "=" : Base64.getEncoder().encodeToString(b);
  }
}
