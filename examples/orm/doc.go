// Package orm holds no code but tests: what package outbox promises, through
// each driver and ORM, on a real Postgres. They are also the snippets of
// docs/producing-go.md.
//
// It is a module of its own so that nobody who runs the other examples builds
// seven database libraries.
package orm
