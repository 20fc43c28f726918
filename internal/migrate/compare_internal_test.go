package migrate

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/outrider-cdc/outrider/outbox/migrations"
)

// Compare compares a file with the database as if later had been applied after it.
func Compare(ctx context.Context, conn *pgx.Conn, text, later string) (gone, altered []string, err error) {
	names, err := migrations.Names{}.Normalize()
	if err != nil {
		return nil, nil, err
	}
	objects, err := readCatalog(ctx, conn, names)
	if err != nil {
		return nil, nil, err
	}
	gone, altered = file{text, later}.compare(objects)
	return gone, altered, nil
}
