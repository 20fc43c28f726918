package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-cdc/outrider/internal/secret"
)

const planted = "hunter2"

func TestNothingPrintsASecret(t *testing.T) {
	type config struct {
		Password secret.Text
		Nested   struct{ URL *secret.Text }
		List     []secret.Text
		Map      map[string]secret.Text
		Any      any
	}
	text := secret.New(planted)
	c := config{Password: text, List: []secret.Text{text}, Map: map[string]secret.Text{"a": text}, Any: text}
	c.Nested.URL = &text

	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%08.3f"} {
		for _, value := range []any{text, &text, c, &c} {
			if out := fmt.Sprintf(verb, value); strings.Contains(out, planted) || strings.Contains(strings.ToLower(out), fmt.Sprintf("%x", planted)) {
				t.Errorf("%s of %T tells the secret: %s", verb, value, out)
			}
		}
	}
	if out := fmt.Errorf("wrapped: %v", c).Error(); strings.Contains(out, planted) {
		t.Errorf("an error tells the secret: %s", out)
	}
	encoded, err := json.Marshal(c)
	if err != nil || strings.Contains(string(encoded), planted) || !strings.Contains(string(encoded), "REDACTED") {
		t.Errorf("JSON: %s, %v", encoded, err)
	}
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("message", "text", text, "config", c, slog.Group("group", "text", &text))
	}
	if strings.Contains(log.String(), planted) {
		t.Errorf("the log tells the secret: %s", log.String())
	}
}

func TestUnsetIsNotRedacted(t *testing.T) {
	var unset secret.Text
	if got := fmt.Sprint(unset); got != "" || unset.IsSet() {
		t.Errorf("an unset secret prints %q, is set: %t", got, unset.IsSet())
	}
	if value, err := unset.Reveal(); value != "" || err != nil {
		t.Errorf("an unset secret reveals %q, %v", value, err)
	}
}

func TestRevealReadsTheFileEachTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	text := secret.FromFile(path)
	if !text.IsSet() || text.File() != path {
		t.Errorf("is set: %t, file %q", text.IsSet(), text.File())
	}
	if _, err := text.Reveal(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	for content, want := range map[string]string{"old\n": "old", "new \t\r\n": "new", " spaced in front": " spaced in front", "\n": ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := text.Reveal(); got != want || err != nil {
			t.Errorf("file with %q reveals %q, %v", content, got, err)
		}
	}
}

func TestUnmarshalText(t *testing.T) {
	var text secret.Text
	if err := text.UnmarshalText([]byte(planted)); err != nil {
		t.Fatal(err)
	}
	if got, err := text.Reveal(); got != planted || err != nil {
		t.Errorf("reveals %q, %v", got, err)
	}
}
