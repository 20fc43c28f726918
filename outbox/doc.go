// Package outbox is what applications import. The contract between an
// application and the relay is the table; its migrations lie in package
// migrations.
package outbox
