package main

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"

	"github.com/outrider-cdc/outrider/internal/secret"
	"github.com/outrider-cdc/outrider/relay"
)

// Where a value came from.
const (
	fromDefault     = "default"
	fromEnvironment = "environment"
	fromFile        = "file"
	fromDerived     = "derived" // from other values
)

// field is one variable: what its struct's tags say, and what was found.
type field struct {
	section string // of the documentation
	name    string // with prefix
	initial string // default
	doc     string
	value   reflect.Value // addressable, in the config
	origin  string
}

// fieldsOf walks over the variables of c in the order in which they are declared.
func fieldsOf(c *config) []field { return appendFields(nil, "", prefix, reflect.ValueOf(c).Elem()) }

func appendFields(to []field, section, prefix string, v reflect.Value) []field {
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		name, _, _ := strings.Cut(tag.Get("env"), ",")
		switch {
		case name != "" && name != "-":
			to = append(to, field{
				section: section, name: prefix + name, initial: tag.Get("envDefault"),
				doc: tag.Get("doc"), value: v.Field(i), origin: fromDefault,
			})
		case v.Field(i).Kind() == reflect.Struct && v.Type().Field(i).IsExported():
			inner := section
			if doc := tag.Get("doc"); doc != "" {
				inner = doc
			}
			to = appendFields(to, inner, prefix+tag.Get("envPrefix"), v.Field(i))
		}
	}
	return to
}

// secret returns the field's value if it is one that must not be printed.
func (f field) secret() (*secret.Text, bool) {
	return reflect.TypeAssert[*secret.Text](f.value.Addr())
}

// hint says what the variable means and shows one that works.
func (f field) hint() relay.Hint {
	h := relay.Hint{Say: f.doc}
	if f.initial != "" {
		h.Env = f.name + "=" + f.initial
	}
	return h
}

// parseAlone parses this one variable and nothing else.
func (f field) parseAlone(vars map[string]string) error {
	value, ok := vars[f.name]
	if !ok {
		return nil
	}
	var c config
	err := env.ParseWithOptions(&c, env.Options{Prefix: prefix, Environment: map[string]string{f.name: value}})
	list, _ := errors.AsType[env.AggregateError](err)
	for _, err := range list.Errors {
		if bad, ok := errors.AsType[env.ParseError](err); ok {
			return bad.Err
		}
	}
	return nil
}

// readOrigin notes where the value came from, and takes that of a secret from
// the file that is named by X_FILE.
func (f *field) readOrigin(vars map[string]string) error {
	if vars[f.name] != "" {
		f.origin = fromEnvironment
	}
	text, ok := f.secret()
	path := vars[f.name+"_FILE"]
	if !ok || path == "" {
		return nil
	}
	if f.origin == fromEnvironment {
		return hinted(fmt.Errorf("both %s and %[1]s_FILE are set", f.name), relay.Hint{Say: "keep one of the two"})
	}
	f.origin = fromFile + " " + path
	*text = secret.FromFile(path)
	switch value, err := text.Reveal(); {
	case err != nil:
		return hinted(fmt.Errorf("%s_FILE: %w", f.name, err), relay.Hint{Say: "mount the file, and let the user that runs outrider (in the image: uid 65532) read it"})
	case value == "":
		return hinted(fmt.Errorf("%s_FILE: %s is empty", f.name, path), relay.Hint{Say: "write the secret into it"})
	}
	return nil
}

// text is the value as the variable would be written, or REDACTED.
func (f field) text() string {
	switch v := f.value.Interface().(type) {
	case string:
		return withoutPassword(v)
	case []string:
		return strings.Join(v, ",")
	case map[string]string:
		var pairs []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			pairs = append(pairs, key+":"+v[key])
		}
		return strings.Join(pairs, ",")
	default:
		return fmt.Sprint(v)
	}
}

// withoutPassword hides what an address may hold that is no secret by its type.
func withoutPassword(v string) string {
	if !strings.Contains(v, "://") {
		return v
	}
	u, err := url.Parse(v)
	if err != nil {
		return "REDACTED"
	}
	return u.Redacted()
}
