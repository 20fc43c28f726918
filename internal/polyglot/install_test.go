package polyglot_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/internal/harness"
	"github.com/outrider-cdc/outrider/internal/harness/download"
	"github.com/outrider-cdc/outrider/internal/harness/kafka"
	"github.com/outrider-cdc/outrider/internal/harness/librdkafka"
)

// errMissing means that a language or its registry is not to be had.
var errMissing = errors.New("not installed")

// toolchain is a language: how a program of it is started, with its drivers.
type toolchain struct {
	command []string // the program's file comes after it
	environ []string
	file    string
}

// get installs drivers once, into the cache of servers, or skips as [harness.Missing] does.
func get(t *testing.T, install func(context.Context) (toolchain, error)) toolchain {
	t.Helper()
	tools, err := install(t.Context())
	if errors.Is(err, errMissing) {
		harness.Missing(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tools
}

// pinned are the drivers and their versions: the newest that this was written against.
const (
	nodeDrivers   = "pg@8.23.1 knex@3.3.0 kafkajs@2.2.4"
	javaDriver    = "org.postgresql:postgresql:42.7.11"
	javaKafka     = "org.apache.kafka:kafka-clients:" + kafka.Version
	hibernateCore = "org.hibernate.orm:hibernate-core:7.1.5.Final"
)

func pythonDrivers() []string {
	return []string{"psycopg[binary]==3.3.9", "sqlalchemy==2.1.9", "django==5.2.19", "confluent-kafka==" + librdkafka.Version}
}

func python(ctx context.Context) (toolchain, error) {
	command, path, err := download.Python(ctx, pythonDrivers()...)
	if err != nil {
		return toolchain{}, fmt.Errorf("%w: %w", errMissing, err)
	}
	return toolchain{[]string{command}, []string{"PYTHONPATH=" + path}, "producer.py"}, nil
}

func node(ctx context.Context) (toolchain, error) {
	command, err := exec.LookPath("node")
	if err != nil {
		return toolchain{}, fmt.Errorf("%w: %w (apt-get install nodejs npm)", errMissing, err)
	}
	dir := folder("node", nodeDrivers)
	err = installed(ctx, dir, func(tmp string) []string {
		return append([]string{"npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", tmp}, strings.Fields(nodeDrivers)...)
	})
	return toolchain{[]string{command}, []string{"NODE_PATH=" + filepath.Join(dir, "node_modules")}, "producer.mjs"}, err
}

func java(ctx context.Context) (toolchain, error) {
	return onJVM(ctx, "Producer.java", javaDriver)
}

func hibernate(ctx context.Context) (toolchain, error) {
	return onJVM(ctx, "HibernateProducer.java", javaDriver, hibernateCore)
}

func javaConsumer(ctx context.Context) (toolchain, error) {
	return onJVM(ctx, "Taker.java", javaDriver, javaKafka)
}

func onJVM(ctx context.Context, file string, artifacts ...string) (toolchain, error) {
	command, err := exec.LookPath("java")
	if err == nil {
		_, err = exec.LookPath("javac")
	}
	if err != nil {
		return toolchain{}, fmt.Errorf("%w: %w (apt-get install default-jdk-headless maven)", errMissing, err)
	}
	dir := folder("java", strings.Join(artifacts, " "))
	err = download.Once(ctx, dir, func(tmp string) error {
		return download.MavenProject(ctx, tmp, artifacts...)
	})
	if err != nil {
		err = fmt.Errorf("%w: %w", errMissing, err)
	}
	return toolchain{[]string{command}, []string{"CLASSPATH=" + filepath.Join(dir, "*")}, file}, err
}

// php is the distribution's, with its driver.
func php(ctx context.Context) (toolchain, error) {
	command, err := exec.LookPath("php")
	if err == nil {
		var modules []byte
		if modules, err = exec.CommandContext(ctx, command, "-m").Output(); err == nil && !strings.Contains(string(modules), "pdo_pgsql") {
			err = errors.New("php without pdo_pgsql")
		}
	}
	if err != nil {
		return toolchain{}, fmt.Errorf("%w: %w (apt-get install php-cli php-pgsql)", errMissing, err)
	}
	return toolchain{[]string{command}, nil, "producer.php"}, nil
}

// folder of the cache, by what is in it.
func folder(language, drivers string) string {
	name := strings.NewReplacer("[", "-", "]", "", "==", "-", "@", "-", ":", "-", " ", "-").Replace(language + " " + drivers)
	return filepath.Join(download.Cache(false), "drivers-"+name)
}

func installed(ctx context.Context, dir string, command func(tmp string) []string) error {
	err := download.Once(ctx, dir, func(tmp string) error {
		line := command(tmp)
		out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", line[0], err, out)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errMissing, err)
	}
	return nil
}
