package kafka

import (
	"fmt"
	"log/slog"
	"strings"
)

// Versions that are known to work.
const (
	Version  = "4.3.1" // what Options mean by ""
	Version3 = "3.9.2" // the last of the 3 line: no transactions of the second kind (KIP-890)
)

// Options say which cluster is wanted.
type Options struct {
	Nodes      int      // 1 or 3; 0 is 1
	Version    string   // Version or Version3; "" is Version, or what TEST_KAFKA holds
	Throughput bool     // the compilers and memory that a long run wants; a start then takes twice as long
	Properties []string // name=value, for server.properties; they win over the harness's
	Dir        string   // parent of the cluster's folder; "" is memory where there is enough, see child.Scratch

	// Advertise gives the address that clients are told for a node, such as that
	// of a proxy before it. It is called once a node, before the start.
	// [Cluster.Direct] still leads past it.
	Advertise func(node int, address string) (string, error)

	Logger *slog.Logger // told about downloads; nil: nobody
}

func (o *Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// properties is server.properties of a node. CLIENT is the listener of clients,
// INTERNAL that of the brokers among themselves: it never goes through a proxy.
func (c *Cluster) properties(n *node) string {
	voters := make([]string, len(c.nodes))
	for i, other := range c.nodes {
		voters[i] = fmt.Sprintf("%d@%s", other.id, local(other.controller))
	}
	replicas, inSync := 1, 1
	if len(c.nodes) > 1 {
		replicas, inSync = 3, 2
	}
	lines := []string{
		"process.roles=broker,controller",
		fmt.Sprintf("node.id=%d", n.id),
		"controller.quorum.voters=" + strings.Join(voters, ","),
		"listeners=CLIENT://" + local(n.client) + ",INTERNAL://" + local(n.internal) + ",CONTROLLER://" + local(n.controller),
		"advertised.listeners=CLIENT://" + n.advertised + ",INTERNAL://" + local(n.internal),
		"controller.listener.names=CONTROLLER",
		"inter.broker.listener.name=INTERNAL",
		"listener.security.protocol.map=CLIENT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs=" + n.data(),
		fmt.Sprintf("default.replication.factor=%d", replicas),
		fmt.Sprintf("offsets.topic.replication.factor=%d", replicas),
		fmt.Sprintf("transaction.state.log.replication.factor=%d", replicas),
		fmt.Sprintf("min.insync.replicas=%d", inSync),
		fmt.Sprintf("transaction.state.log.min.isr=%d", inSync),
		"offsets.topic.num.partitions=1",
		"transaction.state.log.num.partitions=1",
		"auto.create.topics.enable=false",
		"group.initial.rebalance.delay.ms=0",
		"num.network.threads=2",
		"num.io.threads=4",
		"log.cleaner.threads=1",
		"log.cleaner.dedupe.buffer.size=2097152",
		// A dead neighbour is noticed within 3 s instead of 9, and replaced at once.
		"broker.heartbeat.interval.ms=500",
		"broker.session.timeout.ms=3000",
		"replica.lag.time.max.ms=5000",
		"controller.quorum.election.timeout.ms=500",
		"controller.quorum.fetch.timeout.ms=1000",
		"controller.quorum.election.backoff.max.ms=300",
	}
	if !c.jars.old {
		lines = append(lines,
			fmt.Sprintf("share.coordinator.state.topic.replication.factor=%d", replicas),
			fmt.Sprintf("share.coordinator.state.topic.min.isr=%d", inSync),
			"share.coordinator.state.topic.num.partitions=1")
	}
	return strings.Join(append(lines, c.options.Properties...), "\n") + "\n"
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// flags are the JVM's. Serial collector and first compiler only: such a node
// starts fastest and stays smallest. No file of a node may lie outside its
// folder: neither the JVM's performance data nor unpacked compression libraries.
func (c *Cluster) flags(n *node) []string {
	flags := []string{
		"-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData",
		"-Djava.io.tmpdir=" + n.dir, "-Dkafka.logs.dir=" + n.dir,
	}
	if c.options.Throughput {
		flags = append(flags, "-Xmx1g")
	} else {
		flags = append(flags, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m")
	}
	config := "file:" + c.logConfig()
	if c.jars.old {
		flags = append(flags, "-Dlog4j.configuration="+config)
	} else {
		flags = append(flags, "-Dlog4j2.configurationFile="+config, "-Dlog4j2.disable.jmx=true")
	}
	return append(flags, "-cp", c.jars.classPath())
}

// logging is the configuration under which a healthy broker says next to nothing.
func (j jars) logging() string {
	if j.old {
		return `log4j.rootLogger=WARN, c
log4j.appender.c=org.apache.log4j.ConsoleAppender
log4j.appender.c.layout=org.apache.log4j.PatternLayout
log4j.appender.c.layout.ConversionPattern=[%d] %p %m (%c)%n
`
	}
	return `status = error
appender.c.type = Console
appender.c.name = C
appender.c.layout.type = PatternLayout
appender.c.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = WARN
rootLogger.appenderRef.c.ref = C
`
}
