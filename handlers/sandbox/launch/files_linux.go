package launch

import (
	"errors"
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// LandlockABI returns the version that the kernel supports; 0 is none.
func LandlockABI() int {
	version, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return version
}

// restrictFiles applies all restrictions that the kernel supports, and fails if that is less
// than promised. It restricts only this thread, which starts the command.
func restrictFiles(s Spec) error {
	if s.Files == nil {
		return nil
	}
	least := FilesABI
	if s.Files.Connect != nil {
		least = ConnectABI
	}
	if abi := LandlockABI(); abi < least {
		return fmt.Errorf("the kernel has version %d of it, and this needs %d", abi, least)
	}
	config := landlock.V11
	config.HandledAccessNet = 0
	if s.Files.Connect != nil {
		config.HandledAccessNet = ll.AccessNetConnectTCP
	}
	// The seccomp filter restricts unix sockets, the same way on all kernels.
	config.HandledAccessFS &^= ll.AccessFSResolveUnix
	fd, flags, err := config.BestEffort().NewRulesetFD(s.Files.landlockRules()...)
	if err != nil {
		return err
	}
	if fd < 0 {
		return errors.New("the kernel can do nothing of it")
	}
	return ll.LandlockRestrictSelf(fd, flags) // the descriptor is closed at exec
}

func (f Files) landlockRules() []landlock.Rule {
	var readDirs, readFiles, writeDirs, writeFiles []string
	sort := func(paths []string, dirs, files *[]string) {
		for _, path := range paths {
			info, err := os.Stat(path)
			switch {
			case err != nil: // it does not exist, or is not accessible anyway
			case info.IsDir():
				*dirs = append(*dirs, path)
			default:
				*files = append(*files, path)
			}
		}
	}
	sort(f.Read, &readDirs, &readFiles)
	sort(f.Write, &writeDirs, &writeFiles)
	rules := []landlock.Rule{
		landlock.RODirs(readDirs...).IgnoreIfMissing(), landlock.ROFiles(readFiles...).IgnoreIfMissing(),
		landlock.RWDirs(writeDirs...).WithRefer().IgnoreIfMissing(), landlock.RWFiles(writeFiles...).IgnoreIfMissing(),
	}
	for _, port := range f.Connect {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	return rules
}
