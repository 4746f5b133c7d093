package fault

// Kind is the class of an error: what a program can do about it. Each maps to one gRPC code and one HTTP status.
type Kind uint8

// The kinds. None is the kind of no error.
const (
	None        Kind = iota
	Invalid          // the request is wrong and will stay wrong
	NotFound         // what was named does not exist
	Conflict         // someone else changed it first: read again and decide
	Denied           // the caller may not do this
	Exhausted        // a limit was reached: try again after the given time
	Unavailable      // the target cannot be reached now
	Tripped          // a breaker is open: the target was failing, it was not asked
	Timeout          // the deadline passed; the work may or may not have been done
	Canceled         // the caller went away
	Unsupported      // the backend or version cannot do this
	Internal         // a defect: of Sidecast, of a backend or of the app
)

type kindRow struct {
	name string
	grpc uint32 // google.golang.org/grpc/codes
	http int
	doc  string
}

// kindTable is the only place that knows how kinds look outside. Tripped shares UNAVAILABLE; ErrorInfo's metadata
// carries the kind's name, so a Sidecast peer or SDK reads it back exactly.
var kindTable = [...]kindRow{
	None:        {"ok", 0, 200, "no error"},
	Invalid:     {"invalid", 3, 400, "the request is wrong and will stay wrong"},
	NotFound:    {"not_found", 5, 404, "what was named does not exist"},
	Conflict:    {"conflict", 10, 409, "someone else changed it first: read again and decide"},
	Denied:      {"denied", 7, 403, "the caller may not do this"},
	Exhausted:   {"exhausted", 8, 429, "a limit was reached: try again after the given time"},
	Unavailable: {"unavailable", 14, 503, "the target cannot be reached now"},
	Tripped:     {"tripped", 14, 503, "a breaker is open: the target was failing and was not asked"},
	Timeout:     {"timeout", 4, 504, "the deadline passed; the work may or may not have been done"},
	Canceled:    {"canceled", 1, 499, "the caller went away"},
	Unsupported: {"unsupported", 12, 501, "the backend or version cannot do this"},
	Internal:    {"internal", 13, 500, "a defect: of Sidecast, of a backend or of the app"},
}

// Kinds returns every kind but None, in order.
func Kinds() []Kind {
	all := make([]Kind, 0, len(kindTable)-1)
	for k := Invalid; int(k) < len(kindTable); k++ {
		all = append(all, k)
	}
	return all
}

func (k Kind) row() kindRow {
	if int(k) < len(kindTable) {
		return kindTable[k]
	}
	return kindTable[Internal]
}

// String is the kind's name in lower case, as logs, metrics and the wire carry it.
func (k Kind) String() string { return k.row().name }

// GRPC is the kind's gRPC status code (google.golang.org/grpc/codes).
func (k Kind) GRPC() uint32 { return k.row().grpc }

// HTTP is the kind's HTTP status.
func (k Kind) HTTP() int { return k.row().http }

// Doc says in a sentence what the kind means to a caller.
func (k Kind) Doc() string { return k.row().doc }

// KindNamed is the inverse of String.
func KindNamed(name string) (Kind, bool) {
	for k, row := range kindTable {
		if row.name == name {
			return Kind(k), true
		}
	}
	return Internal, false
}

// KindFromGRPC is the inverse of GRPC; codes that no kind has map to their nearest one.
func KindFromGRPC(code uint32) Kind {
	switch code {
	case 6: // ALREADY_EXISTS
		return Conflict
	case 9, 11: // FAILED_PRECONDITION, OUT_OF_RANGE
		return Invalid
	case 16: // UNAUTHENTICATED
		return Denied
	}
	for k, row := range kindTable {
		if row.grpc == code {
			return Kind(k)
		}
	}
	return Internal // UNKNOWN, DATA_LOSS
}

// KindFromHTTP is the inverse of HTTP; statuses that no kind has map by their class.
func KindFromHTTP(status int) Kind {
	switch status {
	case 401:
		return Denied
	case 408:
		return Timeout
	case 412:
		return Conflict
	case 502:
		return Unavailable
	}
	for k, row := range kindTable {
		if row.http == status {
			return Kind(k)
		}
	}
	switch {
	case status >= 200 && status < 400:
		return None
	case status >= 400 && status < 500:
		return Invalid
	}
	return Internal
}
