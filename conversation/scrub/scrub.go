// Package scrub takes personal data out of texts, as Dapr's sidecars do before a language model sees them:
//
//	scrub.Text("write to ann@example.com") // "write to <EMAIL_ADDRESS>"
//
// It knows data by its form and by nothing else. So it finds what is none, such as a number of four digits, which may be one
// of a telephone, and misses what looks like other words, such as names. What is part of a link is left as it is.
package scrub

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// The forms are those of github.com/mingrammer/commonregex (MIT), whose phone numbers are shorter here, as with Dapr's sidecars.
// Where two kinds are the same text, the later one in the list is told.
var forms = []struct{ instead, form string }{
	{"STREET_ADDRESS", `(?i)\d{1,4} [\w\s]{1,20}(?:street|st|avenue|ave|road|rd|highway|hwy|square|sq|trail|trl|drive|dr|court|ct|park|parkway|pkwy|circle|cir|boulevard|blvd)\W?`},
	{"CREDIT_CARD", `(?:\d{4}[- ]?){3}\d{4}|\d{15,16}`},
	{"PHONE_NUMBER", `(?i)(?:(?:\+?1\s*(?:[.-]\s*)?)?(?:\(\s*(?:[2-9]1[02-9]|[2-9][02-8]1|[2-9][02-8][02-9])\s*\)|(?:[2-9]1[02-9]|[2-9][02-8]1|[2-9][02-8][02-9]))\s*(?:[.-]\s*)?)?` +
		`(?:[2-9]1[02-9]|[2-9][02-9]1|[2-9][02-9]{2})\s*(?:[.-]\s*)?[0-9]{4}(?:\s*(?:#|x\.?|ext\.?|extension)\s*\d+)?`},
	{"PHONE_NUMBER", `/(?:\+?\d{1,3}[-.\s*]?)?(?:\d\s?){8,11}|(?:\+?\d{1,3}[-.\s*]?)?(?:\(?\d{2,3}\)?[-.\s*]?)?\d{2,3}[-.\s*]?\d{2,6}`},
	{"EMAIL_ADDRESS", `(?i)[a-z0-9!#$%&'*+/=?^_{|.}~-]+@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]*[a-z0-9])?`},
	{"IP", ipv4},
	{"IP", addresses6},
	{"ZIP_CODE", `\b\d{5}(?:[-\s]\d{4})?\b`},
	{"PO_BOX", `(?i)P\.? ?O\.? Box \d+`},
	{"US_SSN", `\d{3}-\d{2}-\d{4}`},
	{"ISBN", `(?:\d-?){9}[\dxX]`},
	{"ISBN", `(?:\d-?){12}[\dxX]`},
	{"MAC_ADDRESS", `(?:[a-fA-F0-9]{2}[:-]){5}[a-fA-F0-9]{2}`},
	{"IBAN", `[A-Z]{2}\d{2}[A-Z0-9]{4}\d{7}(?:[A-Z\d]?){0,16}`},
}

// addresses6 is the form of IPv6.
var addresses6 = ipv6()

// links are left as they are, with all that is in them.
var links = []string{
	`https?://(?:[a-z0-9.\-]+|www|[a-z0-9.\-])[.](?:[^\s()<>]+|\((?:[^\s()<>]+|\([^\s()<>]+\))*\))+(?:\((?:[^\s()<>]+|\([^\s()<>]+\))*\)|[^\s!()\[\]{};:'".,<>?])`,
	`(?:git|ssh|https?|git@[\w.]+):(?://)?[\w.@:/\-~]+\.git/?`,
}

const ipv4 = `(?:(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\.){3}(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)`

// ipv6 is an address of RFC 4291, section 2.2, with the zone of RFC 4007: by how many groups come before the gap.
func ipv6() string {
	const group = `[0-9A-Fa-f]{1,4}`
	before := fmt.Sprintf(`(?:%[1]s:){7}(?:%[1]s|:)|(?:%[1]s:){6}(?::%[1]s|%[2]s|:)`, group, ipv4)
	for n := 5; n >= 0; n-- {
		lead := fmt.Sprintf(`(?:%s:){%d}`, group, n)
		if n == 0 {
			lead = `:`
		}
		before += fmt.Sprintf(`|%s(?:(?::%[2]s){0,%[4]d}:%[5]s|(?::%[2]s){1,%[3]d}|:)`, lead, group, 7-n, 5-n, ipv4)
	}
	return `(?:` + before + `)(?:%\S+)?`
}

// known are the forms and links, once somebody needs them: a sidecar that does not talk has no use for them.
var known = sync.OnceValue(func() (k struct{ forms, links []*regexp.Regexp }) {
	for _, f := range forms {
		k.forms = append(k.forms, regexp.MustCompile(f.form))
	}
	for _, l := range links {
		k.links = append(k.links, regexp.MustCompile(l))
	}
	return k
})

// needs are bytes of which a text without any has nothing of that form; others have a digit.
var needs = map[string]string{"EMAIL_ADDRESS": "@", "IP": ".:", "MAC_ADDRESS": ":-"}

// colons are in every address of IPv6, whose form takes longer to look for than all others together.
var colons = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`:[0-9A-Fa-f]{0,4}:`) })

// find is a part of a text, and which of the forms it has.
type find struct{ from, to, form int }

// Text is a text with placeholders where it had personal data: `<EMAIL_ADDRESS>`.
func Text(text string) string {
	found := in(text)
	if len(found) == 0 {
		return text
	}
	var out strings.Builder
	done := 0
	for _, f := range found {
		if f.to <= done {
			continue
		}
		from := max(f.from, done)
		for f.from < done && from < f.to && text[from] == ' ' { // what is left of one that began in another
			from++
		}
		out.WriteString(text[done:from])
		if from < f.to {
			out.WriteString("<" + forms[f.form].instead + ">")
		}
		done = f.to
	}
	out.WriteString(text[done:])
	return out.String()
}

// in finds what is to go, in order. Of those that begin together the longest comes first, of those that are the same the last.
func in(text string) []find {
	var found []find
	digits := strings.ContainsAny(text, "0123456789")
	for i, f := range known().forms {
		if need, ok := needs[forms[i].instead]; ok && !strings.ContainsAny(text, need) || !ok && !digits {
			continue
		}
		if forms[i].form == addresses6 && !colons().MatchString(text) {
			continue
		}
		for _, at := range f.FindAllStringIndex(text, -1) {
			found = append(found, find{at[0], at[1], i})
		}
	}
	if safe := linksIn(text); len(safe) > 0 {
		found = slices.DeleteFunc(found, func(f find) bool {
			i, _ := slices.BinarySearchFunc(safe, f.from, func(at []int, from int) int { return cmp.Compare(at[1], from+1) })
			return i < len(safe) && safe[i][0] < f.to
		})
	}
	slices.SortFunc(found, func(a, b find) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to), cmp.Compare(b.form, a.form))
	})
	return found
}

// linksIn are the places of links, in order and apart.
func linksIn(text string) (apart [][]int) {
	var all [][]int
	for _, l := range known().links {
		all = append(all, l.FindAllStringIndex(text, -1)...)
	}
	slices.SortFunc(all, func(a, b []int) int { return cmp.Compare(a[0], b[0]) })
	for _, at := range all {
		if last := len(apart) - 1; last >= 0 && at[0] < apart[last][1] {
			apart[last][1] = max(apart[last][1], at[1])
			continue
		}
		apart = append(apart, at)
	}
	return apart
}
