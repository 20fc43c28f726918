package format

import "strings"

// pythonString writes s as a literal of Python: its lines stay lines, and it
// means s again whatever is in it.
func pythonString(s string) string {
	return `"""` + strings.NewReplacer(`\`, `\\`, "\r", `\r`, `"""`, `\"\"\"`).Replace(strings.TrimSuffix(s, `"`)) + lastQuote(s) + `"""`
}

// lastQuote keeps a quote at the end from closing the literal.
func lastQuote(s string) string {
	if strings.HasSuffix(s, `"`) {
		return `\"`
	}
	return ""
}

// pythonStatements is one literal a statement, each made by wrap and followed by
// end. Comments become comments of Python.
func pythonStatements(script, indent, end string, wrap func(sql string) string) (string, error) {
	list, err := statements(script)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, s := range list {
		for line := range strings.Lines(s.comment) {
			b.WriteString(indent + "# " + strings.TrimSpace(strings.TrimLeft(strings.TrimSpace(line), "-/*")) + "\n")
		}
		b.WriteString(indent + wrap(s.sql) + end + "\n")
	}
	return b.String(), nil
}
