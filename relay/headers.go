package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

var errHeaders = errors.New("headers are not a flat JSON object")

// parseHeaders appends the members of a JSON object to dst in their order. A
// string becomes its text, null a null header, anything else its JSON text.
// Values alias src where they can; names are taken from intern. Rows without
// escapes, which is nearly all, cost no allocation beyond dst.
//
// It reads what Postgres prints for jsonb, but takes any valid JSON, and
// returns an error for everything else.
func parseHeaders(src []byte, dst []Header, intern func([]byte) string) ([]Header, error) {
	s := scanner{src: src}
	if !s.accept('{') {
		return nil, errHeaders
	}
	if s.accept('}') {
		return dst, s.end()
	}
	for {
		key, err := s.text()
		if err != nil {
			return nil, err
		}
		if !s.accept(':') {
			return nil, errHeaders
		}
		value, err := s.value()
		if err != nil {
			return nil, err
		}
		dst = append(dst, Header{Key: intern(key), Value: value})
		if s.accept(',') {
			continue
		}
		if !s.accept('}') {
			return nil, errHeaders
		}
		return dst, s.end()
	}
}

type scanner struct {
	src []byte
	pos int
}

func (s *scanner) space() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) accept(c byte) bool {
	s.space()
	if s.pos < len(s.src) && s.src[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) end() error {
	if s.space(); s.pos != len(s.src) {
		return errHeaders
	}
	return nil
}

// quoted returns the string literal at the cursor with its quotes, and whether it holds escapes.
func (s *scanner) quoted() (literal []byte, escaped bool, err error) {
	if !s.accept('"') {
		return nil, false, errHeaders
	}
	start := s.pos - 1
	for ; s.pos < len(s.src); s.pos++ {
		switch s.src[s.pos] {
		case '"':
			s.pos++
			return s.src[start:s.pos:s.pos], escaped, nil
		case '\\':
			escaped = true
			s.pos++
		}
	}
	return nil, false, errHeaders
}

// text decodes the string literal at the cursor.
func (s *scanner) text() ([]byte, error) {
	literal, escaped, err := s.quoted()
	if err != nil {
		return nil, err
	}
	if !escaped {
		raw := literal[1 : len(literal)-1 : len(literal)-1]
		if !plain(raw) {
			return nil, errHeaders
		}
		return raw, nil
	}
	var text string
	if err := json.Unmarshal(literal, &text); err != nil {
		return nil, fmt.Errorf("%w: %w", errHeaders, err)
	}
	return []byte(text), nil
}

// plain reports whether a literal without escapes is valid as it stands.
func plain(raw []byte) bool {
	for _, c := range raw {
		if c < 0x20 {
			return false
		}
	}
	return utf8.Valid(raw)
}

func (s *scanner) value() ([]byte, error) {
	s.space()
	if s.pos < len(s.src) && s.src[s.pos] == '"' {
		return s.text()
	}
	start, depth := s.pos, 0
scan:
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case '"':
			if _, _, err := s.quoted(); err != nil {
				return nil, err
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				break scan
			}
			depth--
		case ',':
			if depth == 0 {
				break scan
			}
		}
		s.pos++
	}
	end := s.pos
	for end > start && (s.src[end-1] == ' ' || s.src[end-1] == '\n' || s.src[end-1] == '\t' || s.src[end-1] == '\r') {
		end--
	}
	raw := s.src[start:end:end]
	if !json.Valid(raw) {
		return nil, errHeaders
	}
	if string(raw) == "null" {
		return nil, nil
	}
	return raw, nil
}
