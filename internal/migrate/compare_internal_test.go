package migrate

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// Compare compares all files with the database as if later had been applied after each.
func Compare(ctx context.Context, conn *pgx.Conn, later string) (gone, altered []string, err error) {
	names, err := migrations.Names{}.Normalize()
	if err != nil {
		return nil, nil, err
	}
	objects, err := readCatalog(ctx, conn, names)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range migrations.All() {
		if m.ForRole() {
			continue
		}
		text, err := m.Render(names)
		if err != nil {
			return nil, nil, err
		}
		g, a := file{text, later}.compare(objects)
		gone, altered = append(gone, g...), append(altered, a...)
	}
	return gone, altered, nil
}
