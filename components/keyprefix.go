package components

import (
	"slices"
	"strings"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
)

// keySeparator stands between a prefix and a key: Dapr's.
const keySeparator = "||"

// keyPrefixField is the key that all state stores have in common, with Dapr's meaning. The State block reads it.
var keyPrefixField = Field{
	Key: "keyPrefix", Type: "string", Default: "appid", index: -1,
	Doc: "What keys start with: appid, name (of the component), namespace (and the app id), none (keys are shared by all apps), or any other text as it is.",
}

// actorField is in most state stores of Dapr's apps.
var actorField = Field{
	Key: "actorStateStore", Type: "bool", index: -1,
	Doc: "Whether Dapr's actors keep their state here. Accepted and without effect: there are no actors yet.",
}

// lockPrefixField is the same for locks, as far as Dapr's API goes.
var lockPrefixField = Field{
	Key: "keyPrefix", Type: "string", Default: "appid", index: -1,
	Doc: "What the names of locks start with that Dapr's API asks for: appid, name (of the component), namespace (and the app id), none (they are shared by all apps), or any other text as it is. Names of the native API are as they are given.",
}

// commonFields are the keys that a block reads itself, for all its components. No struct has them, and nobody changes them.
var commonFields = map[Block][]Field{StateBlock: slices.Concat([]Field{keyPrefixField, actorField}, encryptionFields, outboxFields), PubSubBlock: topicFields, LockBlock: {lockPrefixField},
	BindingBlock: bindingFields}

// keyPrefix is what the keys of a state store start with, without the separator; "" means nothing.
func keyPrefix(m Manifest, md metadata, host Host) (string, error) {
	v := md.values[manifest.FoldKey(keyPrefixField.Key)]
	strategy := strings.TrimSpace(v.text)
	if strings.Contains(strategy, keySeparator) {
		return "", fault.New(v.valueAt.String()+": spec.metadata."+v.key, fault.BadManifest, "must not hold %q", keySeparator)
	}
	switch strings.ToLower(strategy) {
	case "", "appid":
		return host.AppID, nil
	case "name":
		return m.Name, nil
	case "namespace":
		if host.Namespace == "" {
			return host.AppID, nil
		}
		return host.Namespace + "." + host.AppID, nil
	case "none":
		return "", nil
	}
	return strategy, nil
}
