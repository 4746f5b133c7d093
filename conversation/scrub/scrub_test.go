package scrub

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// kinds are what Dapr's sidecars make of personal data that stands alone.
var kinds = []struct{ text, want string }{
	{"ann@example.com", "<EMAIL_ADDRESS>"}, {"+1 (212) 555-1234", "<PHONE_NUMBER>"}, {"212 555 1234 ext 7", "<PHONE_NUMBER>"}, {"/12345678", "<PHONE_NUMBER>"},
	{"123-45-6789", "<US_SSN>"}, {"4111 1111 1111 1111", "<CREDIT_CARD>"}, {"4111-1111-1111-1111", "<CREDIT_CARD>"}, {"12345", "<ZIP_CODE>"}, {"10001-1234", "<ZIP_CODE>"},
	{"10.0.0.1", "<IP>"}, {"fe80::1", "<IP>"}, {"::1", "<IP>"}, {"2001:db8::8a2e:370:7334", "<IP>"}, {"1:2:3:4:5:6:7:8", "<IP>"}, {"::ffff:10.0.0.1", "<IP>"},
	{"00:1A:2B:3C:4D:5E", "<MAC_ADDRESS>"}, {"DE89370400440532013000", "<IBAN>"}, {"978-3-16-148410-0", "<ISBN>"}, {"3161484100", "<ISBN>"},
	{"12 Main street", "<STREET_ADDRESS>"}, {"P.O. Box 99", "<PO_BOX>"}, {"2025", "<PHONE_NUMBER>"},
	{"", ""}, {"hello there", "hello there"}, {"v1.2.3, at 12:30, for £5.20", "v1.2.3, at 12:30, for £5.20"},
	{"https://example.com/1234/ann@example.org?q=12345", "https://example.com/1234/ann@example.org?q=12345"}, {"git@github.com:a/b.git", "git@github.com:a/b.git"},
}

func TestKinds(t *testing.T) {
	for _, k := range kinds {
		for _, around := range [][2]string{{"", ""}, {"say ", ""}, {"ä\n", ""}} {
			if got, want := Text(around[0]+k.text+around[1]), around[0]+k.want+around[1]; got != want {
				t.Errorf("%q becomes %q", around[0]+k.text+around[1], got)
			}
		}
	}
}

// Forms overlap: nothing of the earlier or the later one stays, as it does with daprd.
func TestOverlaps(t *testing.T) {
	for text, want := range map[string]string{
		"£5.20 12 Main street, ann@example.com":                                            "£<PHONE_NUMBER> <STREET_ADDRESS> <EMAIL_ADDRESS>",
		"4111 1111 1111 1111 10001-1234":                                                   "<CREDIT_CARD> <ZIP_CODE>",
		"12 Main street ann@example.com":                                                   "<STREET_ADDRESS><EMAIL_ADDRESS>",
		"P.O. Box 99 4111-1111-1111-1111":                                                  "<PO_BOX> <PHONE_NUMBER><CREDIT_CARD>",
		"see https://a.example/x1234 or ann@example.com; https://b.example/1 and 10.0.0.1": "see https://a.example/x1234 or <EMAIL_ADDRESS>; https://b.example/1 and <IP>",
		"fe80::1%eth0 is up":                                                               "<IP> is up",
	} {
		if got := Text(text); got != want {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

// However data is put together, what has a form of its own does not stay.
func TestNothingStays(t *testing.T) {
	secrets := []string{"ann@example.com", "4111-1111-1111-1111", "123-45-6789", "DE89370400440532013000", "00:1A:2B:3C:4D:5E", "2001:db8::8a2e:370:7334", "978-3-16-148410-0"}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(append([]string{"hello", "12 Main street", "2025", "x", "1", "212 555 1234 ext 7", "std::vector"}, secrets...)), 1, 8).Draw(t, "words"), " ")
		got := Text(text)
		for _, secret := range secrets {
			if strings.Contains(got, secret) || strings.Contains(got, secret[len(secret)-8:]) {
				t.Fatalf("%q becomes %q", text, got)
			}
		}
	})
}

func FuzzText(f *testing.F) {
	for _, k := range kinds {
		f.Add(k.text)
	}
	f.Fuzz(func(t *testing.T, text string) { Text(text) })
}

func BenchmarkText(b *testing.B) {
	text := strings.Repeat("Please write to ann@example.com, or call +1 (212) 555-1234, about https://example.com/orders/7. ", 10)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		Text(text)
	}
}

func ExampleText() {
	fmt.Println(Text("write to ann@example.com"))
	// Output: write to <EMAIL_ADDRESS>
}
