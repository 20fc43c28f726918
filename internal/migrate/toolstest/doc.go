// Package toolstest runs real migration tools on what package format prints,
// against a real Postgres.
//
// It promises that goose, golang-migrate, Flyway, Liquibase, Alembic and Django
// bring a database up and down again, and that Outrider then says of it what it
// says after its own migrate up. It is a module of its own so that nobody who
// uses Outrider requires those tools. It does not run Prisma, whose engine is in
// no package registry: its files are sent as the engine sends them. Nor does it
// run Flyway's undo, which the free edition lacks.
package toolstest
