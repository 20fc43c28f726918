// Package securitytest proves on real servers what docs/security.md says: it
// runs the program itself, between a Postgres with TLS and a Kafka with TLS,
// client certificates, passwords and ACLs, with certificates that are made in
// the test. Each way in is also refused: another authority, another name, no
// certificate, another's certificate, a wrong password, one permission less. And
// secrets are planted in every variable, to be looked for in all that is told.
//
// It holds tests only. Tokens and signatures are tested beside the code, in
// package sinks/kafka.
package securitytest
