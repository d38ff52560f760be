package driver

// The rules for every worker at any time: sentences of docs/worker-protocol.md.
const (
	RuleSizes   = "It is at least 1, and at most the maximum in the tables."
	RuleLog     = "otherwise none may be sent"
	RuleOpen    = "An id is in use from its INVOKE to its RESULT"
	RuleOne     = "Every INVOKE is answered by one RESULT, in any order"
	RuleLogIDs  = "A LOG of a call comes before its RESULT."
	RuleStats   = "For workers with a loop, after READY."
	RuleLogTo   = "From WELCOME on."
	RuleAlive   = "Sent each second after READY"
	RuleTwice   = "It is forked twice, so that it becomes a child of the reaper"
	RuleImport  = "At least one precedes READY."
	RuleEnds    = "finish all calls, answer them, and exit with status 0"
	RuleOutcome = "JSON: `summary`, a line, and `detail`"
)
