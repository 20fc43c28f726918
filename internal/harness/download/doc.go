// Package download fetches the builds of servers, once, into a cache that all
// test binaries, the demo and the benchmarks share.
//
// It promises that a target is either there and complete or not there at all,
// also when several processes want it at once and when one of them is killed,
// and that what a package manager verified is what is used. It does not know
// which builds are wanted, and it never looks for a newer one: versions are
// pinned by those who ask.
package download
