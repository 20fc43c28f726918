package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/outrider-cdc/outrider/internal/harness/download"
)

// Variable is the environment variable that names a folder of jars or a bootstrap list.
const Variable = "TEST_KAFKA"

// ErrNoBuild means that there is no Kafka or no Java. Its text ends with what to type.
var ErrNoBuild = errors.New("no Kafka")

// jars is a folder with Kafka's jars, and the Java to run them.
type jars struct {
	dir  string
	java string
	old  bool // of the 3 line, which logs by another library and knows no share groups
}

func (j jars) classPath() string { return filepath.Join(j.dir, "*") }

// findJars looks where doc.go says. The variable is passed over if it holds
// another version than the one that is asked for.
func findJars(ctx context.Context, o *Options) (jars, error) {
	java, err := findJava()
	if err != nil {
		return jars{}, missing(err)
	}
	if dir := os.Getenv(Variable); dir != "" {
		version := versionIn(dir)
		if version == "" {
			return jars{}, fmt.Errorf("%s: neither a bootstrap list nor a folder with the jars of Kafka", Variable)
		}
		if o.Version == "" || o.Version == version {
			return jars{dir: dir, java: java, old: strings.HasPrefix(version, "3.")}, nil
		}
	}
	version := o.Version
	if version == "" {
		version = Version
	}
	dir := filepath.Join(download.Cache(false), "kafka-"+version)
	err = download.Once(ctx, dir, func(tmp string) error {
		o.logger().Info("fetching kafka", "version", version)
		start := time.Now()
		if err := download.MavenProject(ctx, tmp, artifacts(version)...); err != nil {
			return err
		}
		if versionIn(tmp) != version {
			return errors.New("maven did not bring the broker's jar")
		}
		o.logger().Info("fetched kafka", "version", version, "seconds", time.Since(start).Seconds())
		return nil
	})
	if err != nil {
		return jars{}, missing(err)
	}
	return jars{dir: dir, java: java, old: strings.HasPrefix(version, "3.")}, nil
}

func missing(cause error) error {
	return fmt.Errorf("%w: %w; mend it with: apt-get install default-jre-headless maven (or set %s to a folder of jars)",
		ErrNoBuild, cause, Variable)
}

func findJava() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return exec.LookPath(filepath.Join(home, "bin", "java"))
	}
	return exec.LookPath("java")
}

// scala is the version of Scala that Kafka is built for; a part of its name.
const scala = "kafka_2.13"

// versionIn returns the version of the broker's jar in dir, "" without one.
func versionIn(dir string) string {
	names, _ := filepath.Glob(filepath.Join(dir, scala+"-*.jar"))
	for _, name := range names {
		version := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(name), scala+"-"), ".jar")
		if !strings.Contains(version, "-") { // -sources, -javadoc
			return version
		}
	}
	return ""
}

// artifacts are a whole broker. Kafka brings a logging library but not the
// binding to it, without which a broker is mute.
func artifacts(version string) []string {
	binding := "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
	if strings.HasPrefix(version, "3.") {
		binding = "org.slf4j:slf4j-reload4j:1.7.36"
	}
	return []string{"org.apache.kafka:" + scala + ":" + version, binding}
}
