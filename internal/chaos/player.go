package chaos

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// AddRelay gives the stage one more relay, which does not run yet.
func (s *Stage) AddRelay() *Player {
	name := fmt.Sprintf("relay-%d", len(s.Relays)+1)
	p := &Player{Name: name, Relay: Relay{
		Binary: s.cfg.Binary, Log: filepath.Join(s.cfg.Dir, name+".log"),
		Env: []string{
			"OUTRIDER_DATABASE_URL=" + s.relays, "OUTRIDER_NAME=" + s.name(), "OUTRIDER_INSTANCE=" + name,
			"OUTRIDER_KAFKA_BROKERS=" + strings.Join(s.cfg.Cluster.Brokers(), ","), "OUTRIDER_LOG_FORMAT=json",
			"OUTRIDER_WAL_SENDER_TIMEOUT=" + s.cfg.Timeout.String(), "OUTRIDER_MAX_IN_FLIGHT_BYTES=" + strconv.Itoa(s.cfg.Budget),
		},
	}}
	if s.cfg.Delivery != "" {
		p.Relay.Env = append(p.Relay.Env, "OUTRIDER_DELIVERY="+s.cfg.Delivery)
	}
	s.Relays = append(s.Relays, p)
	return p
}

// Player is a relay on a stage, over many lives.
type Player struct {
	Name  string // its instance
	Relay Relay
	*Process
}

// Start begins another life.
func (p *Player) Start() (err error) {
	p.Process, err = p.Relay.Start()
	return err
}
