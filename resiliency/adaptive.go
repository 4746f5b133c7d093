package resiliency

func (a Adaptive) validate(checker) {}
