package local

// Vanish abandons the instances, like a sudden end of this process.
func (p *Provisioner) Vanish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.instances {
		i.startDrain()
	}
	p.instances, p.wanted, p.ending = nil, 0, true
}

// InFlight is the number that the instance in a process has reported.
func (p *Provisioner) InFlight(pid int) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.instances {
		if i.cmd.Process.Pid == pid {
			return i.inFlight
		}
	}
	return -1
}

// PIDs are the processes of the ready instances, by ID.
func (p *Provisioner) PIDs() map[int]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[int]int)
	for _, i := range p.instances {
		if i.state == ready {
			out[i.id] = i.cmd.Process.Pid
		}
	}
	return out
}
