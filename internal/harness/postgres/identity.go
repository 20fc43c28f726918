package postgres

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// identity is as whom servers run. Postgres refuses root; as root we run them
// in a user namespace where our own uid is called nobody: no file changes
// hands, and root's folders stay passable. Where namespaces are forbidden, as
// containers may, servers run as another user and own their data.
type identity struct {
	namespace bool
	uid, gid  int // -1: our own
}

const nobody = 65534

func whoRuns(ctx context.Context) identity {
	switch {
	case os.Geteuid() != 0:
		return identity{uid: -1, gid: -1}
	case namespaceWorks(ctx):
		return identity{namespace: true, uid: -1, gid: -1}
	default:
		return anotherUser()
	}
}

// anotherUser is one with a name, since initdb looks it up.
func anotherUser() identity {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil {
			return identity{uid: uid, gid: gid}
		}
	}
	return identity{uid: nobody, gid: nobody}
}

// foreign reports whether servers run as a user to whom our private folders are closed.
func (id identity) foreign() bool { return id.uid >= 0 }

// own gives path to the server's user.
func (id identity) own(path string) error {
	if err := os.Lchown(path, id.uid, id.gid); err != nil {
		return fmt.Errorf("give %s to the server's user: %w", path, err)
	}
	return nil
}
