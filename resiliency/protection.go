package resiliency

func (p Protection) validate(checker) {}
