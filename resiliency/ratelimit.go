package resiliency

func (r RateLimit) validate(checker) {}
