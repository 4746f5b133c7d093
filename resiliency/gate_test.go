package resiliency

var queueKeys = map[string]policyKey{}
