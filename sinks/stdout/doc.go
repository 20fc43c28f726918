// Package stdout writes messages as lines of JSON, one object a line: to look
// at, to pipe, and as the cheapest sink there is for benchmarks.
//
//	{"topic":"orders","key":"7","value":"{…}","headers":{"id":"…"},"position":"…","committed_at":"…"}
//
// Bytes that are not UTF-8 stand as base64 under key_base64 or value_base64,
// and a header's as {"base64":"…"}; a missing key or value is null.
//
// It promises that a message settles nil after the writer took its line, in the
// order of Publish, and that Publish never waits for the writer. It does not
// promise that anybody has read the line: what a pipe holds when its reader
// dies is lost.
package stdout
