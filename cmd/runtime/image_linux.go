package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// image is the program's own code and constants in this process's memory: where each mapping of them begins and ends.
type image [][2]uintptr

// loadedImage finds them, and divides them.
func loadedImage() (image, error) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	var loaded image
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var start, end uintptr
		var mode string
		line := lines.Text()
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &mode); err != nil {
			return nil, err
		}
		if !strings.HasSuffix(line, " "+program) || strings.Contains(mode, "w") || !strings.HasSuffix(mode, "p") {
			continue // what may have been written to would be lost
		}
		divide(start, end)
		loaded = append(loaded, [2]uintptr{start, end})
	}
	return loaded, lines.Err()
}

// release takes its pages out of this process's memory. The start has touched most of them, for the first and last time: the
// code that sets up each package is spread over all of the file. The collector, too, touches more of them than a sidecar that
// does nothing, which needs it every two minutes. They stay in the page cache, and one that is needed is back within a
// microsecond. What a debugger has written into the code would be lost: with one, nothing happens.
func (i image) release() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil || !strings.Contains(string(status), "\nTracerPid:\t0\n") {
		return err
	}
	for _, m := range i {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m[0], m[1]-m[0], unix.MADV_DONTNEED); errno != 0 {
			return errno
		}
	}
	return nil
}

// A mapping of the program is divided into pieces of this size, whose borders lie off multiples of it by a quarter: both in bytes.
const piece, off = 128 << 10, piece / 4

// divide has a page that is touched come back alone, or with the 64 KiB around it. A newer kernel (6.18) has it bring along all
// that the page cache holds in one piece with it, up to 2 MiB, as it holds what was written with few calls: most of the program
// would be back at once. No more than a mapping comes back, though, and nothing whole that reaches beyond it. Mappings stay apart whose
// advice differs: every other one here will have no huge pages, which are larger than any of them. A system that knows no such
// pages refuses the advice and has no such pieces either.
func divide(start, end uintptr) {
	for at := start + piece + off; at+piece < end; at += 2 * piece {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, at, piece, unix.MADV_NOHUGEPAGE)
	}
}
