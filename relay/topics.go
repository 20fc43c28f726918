package relay

import (
	"errors"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// topic is a destination after routing, with the counters that carry its name,
// so that the row path looks up neither.
type topic struct {
	name          string
	events, bytes prometheus.Counter
	forbidden     error // why no row may go there; nil: it may
}

// published counts a message that is durable downstream. Any goroutine.
func (t *topic) published(m *Message) {
	t.events.Inc()
	t.bytes.Add(float64(len(m.Key) + len(m.Value)))
}

// maxTopics bounds the table of known topics, should rows name ever new ones.
const maxTopics = 10_000

// routes turns the topic column into a topic. One goroutine.
type routes struct {
	prefix   string
	renamed  map[string]string
	fallback string
	allowed  []string
	metrics  *metrics
	known    map[string]*topic
}

func newRoutes(cfg Config, m *metrics) *routes {
	return &routes{
		prefix: cfg.TopicPrefix, renamed: cfg.TopicMap, fallback: cfg.TopicDefault,
		allowed: cfg.TopicsAllowed, metrics: m, known: map[string]*topic{},
	}
}

// find returns the topic for the column's value, nil or empty where the row names none.
func (r *routes) find(column []byte) *topic {
	if t, ok := r.known[string(column)]; ok { // no allocation: the compiler knows this form
		return t
	}
	name := string(column)
	if name == "" {
		name = r.fallback
	}
	if to, ok := r.renamed[name]; ok {
		name = to
	}
	if len(r.known) >= maxTopics {
		clear(r.known)
	}
	t := r.checked(r.prefix + name)
	r.known[string(column)] = t
	return t
}

var errForbidden = errors.New("the topic is not in OUTRIDER_TOPICS_ALLOWED")

// checked is the topic of that name if rows may go there. Otherwise the counters
// are nobody's: names that rows make up must not become series.
func (r *routes) checked(name string) *topic {
	if len(r.allowed) == 0 || slices.ContainsFunc(r.allowed, func(allowed string) bool {
		prefix, wild := strings.CutSuffix(allowed, "*")
		return name == allowed || wild && strings.HasPrefix(name, prefix)
	}) {
		return r.named(name)
	}
	nobody := func() prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "outrider_forbidden_total", Help: "Not registered."})
	}
	return &topic{name: name, events: nobody(), bytes: nobody(), forbidden: errForbidden}
}

// named is the topic of that name, as it is.
func (r *routes) named(name string) *topic {
	return &topic{
		name:   name,
		events: r.metrics.events.WithLabelValues(name),
		bytes:  r.metrics.bytes.WithLabelValues(name),
	}
}
