package natspubsub

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/sidecast/sidecast/fabric/subject"
	"github.com/sidecast/sidecast/fault"
)

// names are the subjects and JetStream names of one component. Every user-chosen name is one reversible token.
//
//	sc.<ns>.ps.<component>.<topic>.free     messages without a key
//	sc.<ns>.ps.<component>.<topic>.k.<n>    messages with a key, by partition
//	sc.<ns>.ps.<component>.<topic>.d.<id>   messages that wait for their time
//	sc.<ns>.bell.<component>.<topic>.<n>    republished by the stream for each message of a partition, without its data
type names struct {
	stream     string
	root, bell string
	partitions int
}

func newNames(namespace, component string, partitions int) names {
	ns, comp := subject.Token(namespace), subject.Token(component)
	return names{
		stream:     short("sc~" + ns + "~ps~" + comp),
		root:       "sc." + ns + ".ps." + comp,
		bell:       "sc." + ns + ".bell." + comp,
		partitions: partitions,
	}
}

// maxTopic keeps subjects well under the 4 KiB that a server accepts in one protocol line.
const maxTopic = 1024

func (n names) topic(op, topic string) (string, error) {
	if topic == "" {
		return "", fault.New(op, fault.TopicInvalid, "the topic is empty")
	}
	token := subject.Token(topic)
	if len(token) > maxTopic {
		return "", fault.New(op, fault.TopicInvalid, "the topic takes %d bytes as a subject token, more than %d", len(token), maxTopic)
	}
	return token, nil
}

func (n names) free(topic string) string         { return n.root + "." + topic + ".free" }
func (n names) anyPartition(topic string) string { return n.root + "." + topic + ".k.*" }
func (n names) delayed(topic, id string) string  { return n.root + "." + topic + ".d." + id }
func (n names) partition(topic string, i int) string {
	return n.root + "." + topic + ".k." + strconv.Itoa(i)
}
func (n names) bells(topic string) string { return n.bell + "." + topic + ".*" }
func (n names) bellOf(topic string, i int) string {
	return n.bell + "." + topic + "." + strconv.Itoa(i)
}

// target is where a message of the key is stored.
func (n names) target(topic, key string) string {
	if key == "" {
		return n.free(topic)
	}
	return n.partition(topic, n.partitionOf(key))
}

func (n names) partitionOf(key string) int { return int(xxh3.HashString(key) % uint64(n.partitions)) }

// durable names the consumer of a group, and of shard i of its keyed messages when i is not negative.
func durable(topic, group string, i int) string {
	name := topic + "~" + subject.Token(group)
	if i >= 0 {
		name += "~k" + strconv.Itoa(i)
	}
	return short(name)
}

// short keeps a name within what file systems and JetStream accept as one.
func short(name string) string {
	if len(name) <= 200 {
		return name
	}
	sum := xxh3.HashString128(name)
	return fmt.Sprintf("%s~h%016x%016x", name[:100], sum.Hi, sum.Lo)
}

// lastToken is what follows the last dot.
func lastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }
