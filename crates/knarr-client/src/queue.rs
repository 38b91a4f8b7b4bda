//! The rate-limited work queue of control loops (after client-go's workqueue): a key is in work at most once at a time, a key
//! added while in work is handed out again afterwards, and failures back off exponentially.
