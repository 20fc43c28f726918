package orm

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jmoiron/sqlx"
	"github.com/riverqueue/river"
	"github.com/uptrace/bun"
	"gorm.io/gorm"

	"github.com/outrider-cdc/outrider/outbox"
)

// What follows is shown in docs/producing-go.md; TestSnippets compares.

type OrderPaid struct {
	Order int64  `json:"order"`
	Total string `json:"total"`
}

func paid(order int64) outbox.Message {
	return outbox.Message{
		Topic:   "orders",
		Key:     outbox.Key(strconv.FormatInt(order, 10)),
		Type:    "OrderPaid",
		Payload: OrderPaid{Order: order, Total: "9.90"},
	}
}

const payOrder = `UPDATE orders SET state = 'paid' WHERE id = $1`

func paySQL(ctx context.Context, db *sql.DB, order int64) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := outbox.Write(ctx, tx, paid(order)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, payOrder, order); err != nil {
		return err
	}
	return tx.Commit()
}

func payPgx(ctx context.Context, pool *pgxpool.Pool, order int64) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := outbox.WritePgx(ctx, tx, paid(order)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, payOrder, order)
		return err
	})
}

func paySqlx(ctx context.Context, db *sqlx.DB, order int64) error {
	tx, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := outbox.Write(ctx, tx, paid(order)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, payOrder, order); err != nil {
		return err
	}
	return tx.Commit()
}

func payGorm(ctx context.Context, db *gorm.DB, order int64) error {
	return db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if _, err := outbox.Write(ctx, tx.Statement.ConnPool, paid(order)); err != nil {
			return err
		}
		return tx.Table("orders").Where("id = ?", order).Update("state", "paid").Error
	})
}

func payBun(ctx context.Context, db *bun.DB, order int64) error {
	return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		// tx.Tx, not tx: bun keeps parameters $1, $2, … from the server.
		if _, err := outbox.Write(ctx, tx.Tx, paid(order)); err != nil {
			return err
		}
		_, err := tx.NewUpdate().Table("orders").Set("state = ?", "paid").Where("id = ?", order).Exec(ctx)
		return err
	})
}

func payEnt(ctx context.Context, driver *entsql.Driver, order int64) error {
	tx, err := driver.Tx(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := outbox.Write(ctx, tx.(*entsql.Tx), paid(order)); err != nil {
		return err
	}
	update := entsql.Dialect(dialect.Postgres).Update("orders").Set("state", "paid").Where(entsql.EQ("id", order))
	query, args := update.Query()
	if err := tx.Exec(ctx, query, args, nil); err != nil {
		return err
	}
	return tx.Commit()
}

// DBTX and Queries are as sqlc generates them for pgx/v5.
type DBTX interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
	Query(context.Context, string, ...any) (pgx.Rows, error)
	QueryRow(context.Context, string, ...any) pgx.Row
}

type Queries struct{ db DBTX }

func New(db DBTX) *Queries { return &Queries{db: db} }

func (q *Queries) WithTx(tx pgx.Tx) *Queries { return &Queries{db: tx} }

func (q *Queries) PayOrder(ctx context.Context, id int64) error {
	_, err := q.db.Exec(ctx, payOrder, id)
	return err
}

// Messages and queries of sqlc in one transaction; a method on Queries can hand its DBTX on as well.
func (q *Queries) PayOrderAndTell(ctx context.Context, order int64) error {
	if _, err := outbox.WritePgx(ctx, q.db, paid(order)); err != nil {
		return err
	}
	return q.PayOrder(ctx, order)
}

func paySqlc(ctx context.Context, pool *pgxpool.Pool, queries *Queries, order int64) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		return queries.WithTx(tx).PayOrderAndTell(ctx, order)
	})
}

type SendReceipt struct {
	Order int64 `json:"order"`
}

func (SendReceipt) Kind() string { return "send_receipt" }

func payRiver(ctx context.Context, pool *pgxpool.Pool, jobs *river.Client[pgx.Tx], order int64) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := outbox.WritePgx(ctx, tx, paid(order)); err != nil {
			return err
		}
		if _, err := jobs.InsertTx(ctx, tx, SendReceipt{Order: order}, nil); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, payOrder, order)
		return err
	})
}

// explain tells what became of a message that was refused.
func explain(err error) string {
	var refused *outbox.Error
	var size *outbox.SizeError
	switch {
	case errors.As(err, &size):
		return fmt.Sprintf("%d octets, %d at most", size.Size, size.Limit)
	case errors.Is(err, outbox.ErrDuplicateID):
		return "written before"
	case errors.As(err, &refused):
		return fmt.Sprintf("message %d, field %s", refused.Index, refused.Field)
	}
	return "not about a message"
}

// payConn begins by hand: the server is asked whether a transaction is open.
func payConn(ctx context.Context, db *sql.DB, order int64) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	_, err = outbox.Write(ctx, conn, paid(order))
	if err == nil {
		_, err = conn.ExecContext(ctx, payOrder, order)
	}
	end := "COMMIT"
	if err != nil {
		end = "ROLLBACK"
	}
	if _, endErr := conn.ExecContext(ctx, end); endErr != nil {
		return fmt.Errorf("%s: %w", end, endErr)
	}
	return err
}
