"""How the SDKs say "slow down", "try again" and "never", read by duck type: no SDK is imported. Below all policies."""
