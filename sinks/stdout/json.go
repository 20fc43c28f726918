package stdout

import (
	"encoding/base64"
	"unicode/utf8"

	"github.com/outrider-cdc/outrider/relay"
)

// appendLine appends m as one line.
func appendLine(b []byte, m *relay.Message) []byte {
	b = append(b, `{"topic":`...)
	b = appendString(b, m.Topic)
	b = appendField(b, "key", m.Key)
	b = appendField(b, "value", m.Value)
	b = append(b, `,"headers":{`...)
	var position, committed []byte
	first := true
	for k, v := range m.Headers() {
		switch k { // told beside the headers
		case relay.HeaderPosition:
			position = v
			continue
		case relay.HeaderCommittedAt:
			committed = v
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(b, k)
		b = append(b, ':')
		b = appendHeader(b, v)
	}
	b = append(b, '}')
	b = appendField(b, "position", position)
	b = appendField(b, "committed_at", committed)
	return append(b, '}', '\n')
}

// appendField appends a member that is not the first.
func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	switch {
	case value == nil:
		return append(b, `":null`...)
	case utf8.Valid(value):
		b = append(b, '"', ':')
		return appendString(b, value)
	}
	b = append(b, `_base64":"`...)
	b = base64.StdEncoding.AppendEncode(b, value)
	return append(b, '"')
}

func appendHeader(b, value []byte) []byte {
	switch {
	case value == nil:
		return append(b, "null"...)
	case utf8.Valid(value):
		return appendString(b, value)
	}
	b = append(b, `{"base64":"`...)
	b = base64.StdEncoding.AppendEncode(b, value)
	return append(b, '"', '}')
}

// appendString appends s, which is UTF-8, as a JSON string (RFC 8259, section 7).
func appendString[S string | []byte](b []byte, s S) []byte {
	b = append(b, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
