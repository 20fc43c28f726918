package main

import (
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// unknown is a variable with our prefix that means nothing to us.
type unknown struct {
	name    string
	nearest string // known name that was probably meant, or ""
}

// unknownNames finds the variables with our prefix that no field reads. Their
// values are not kept: a misspelt name may well hold a secret.
func unknownNames(vars map[string]string, fields []field) []unknown {
	known := map[string]bool{}
	for _, f := range fields {
		known[f.name] = true
		if _, ok := f.secret(); ok {
			known[f.name+"_FILE"] = true
		}
	}
	names := slices.Sorted(maps.Keys(known))
	var all []unknown
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if strings.HasPrefix(name, prefix) && !known[name] && !isServiceLink(name, vars[name]) {
			all = append(all, unknown{name, nearestName(name, names)})
		}
	}
	return all
}

// isServiceLink recognises what Kubernetes puts into every container of a
// namespace for a Service named outrider or outrider-<something>, unless
// enableServiceLinks is false: OUTRIDER_SERVICE_HOST, OUTRIDER_PORT=tcp://…,
// OUTRIDER_PORT_8464_TCP_ADDR and so on (Kubernetes documentation, "Service":
// environment variables). The value must look like it, too.
func isServiceLink(name, value string) bool {
	_, err := strconv.ParseUint(value, 10, 16)
	isPort := err == nil
	_, err = netip.ParseAddr(value)
	isAddress := err == nil
	isURL := regexp.MustCompile(`^(tcp|udp|sctp)://`).MatchString(value)
	switch {
	case strings.HasSuffix(name, "_SERVICE_HOST"):
		return isAddress
	case regexp.MustCompile(`_SERVICE_PORT(_[A-Z0-9_]+)?$`).MatchString(name):
		return isPort
	}
	port := regexp.MustCompile(`_PORT(?:_\d+_(?:TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)?$`).FindStringSubmatch(name)
	if port == nil {
		return false
	}
	switch port[1] {
	case "_PROTO":
		return slices.Contains([]string{"tcp", "udp", "sctp"}, value)
	case "_PORT":
		return isPort
	case "_ADDR":
		return isAddress
	default:
		return isURL
	}
}

// nearestName is the known name that name was probably meant to be: one that
// only has more in front (OUTRIDER_BROKERS), or the one with the fewest edits, a
// third of the letters at most.
func nearestName(name string, known []string) string {
	short := strings.TrimPrefix(name, prefix)
	best, fewest := "", len(short)/3+1
	for _, candidate := range known {
		if strings.HasSuffix(candidate, "_"+short) {
			return candidate
		}
		if n := edits(short, strings.TrimPrefix(candidate, prefix)); n < fewest {
			best, fewest = candidate, n
		}
	}
	return best
}

// edits is the optimal string alignment distance: how many letters must be
// added, removed, changed or swapped with their neighbour.
func edits(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
