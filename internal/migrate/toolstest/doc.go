// Package toolstest runs real migration tools on what package format prints,
// against a real Postgres.
//
// It promises that goose, golang-migrate, Flyway, Liquibase, Alembic and Django
// bring a database up and down again, and that Outrider then says of it what it
// says after its own migrate up. It is a module of its own so that nobody who
// uses Outrider requires those tools. It does not run Prisma, whose engine is
// not in a package registry, nor Flyway's undo, which its free edition lacks.
package toolstest
