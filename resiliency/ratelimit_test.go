package resiliency

var limitKeys = map[string]policyKey{}
