'use strict';
// Does not load.

throw new Error('not today');
