"""What a phone prints, in the form that AOSP's services have; made up, not one owner's phone."""

from __future__ import annotations

from tests.devices.adbd import Recordings

MIB = 2**20

BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 83
  scale: 100
  voltage: 4213
  temperature: 296
  technology: Li-ion"""

THERMAL = """IsStatusOverride: false
Thermal Status: 1
Cached temperatures:
	Temperature{mValue=88.0, mType=0, mName=CPU0, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
	Temperature{mValue=45.6, mType=0, mName=CPU0, mStatus=0}
	Temperature{mValue=38.123, mType=3, mName=VIRTUAL-SKIN, mStatus=1}
	Temperature{mValue=-3.4028235E38, mType=5, mName=absent, mStatus=0}
Current cooling devices from HAL:
	CoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
Temperature static thresholds from HAL:
	TemperatureThreshold{mType=3, mName=VIRTUAL-SKIN, mHotThrottlingThresholds=[NaN, 99.0]}"""

POWER = """Power Manager State:
  mDirty=0x0
  mWakefulness=Awake
  mWakefulnessChanging=false"""

MEMINFO = """Applications Memory Usage (in Kilobytes):
Uptime: 4123412 Realtime: 4123412

** MEMINFO in pid 2201 [onekv-runner] **
                   Pss  Private  Private  SwapPss      Rss     Heap     Heap     Heap
                 Total    Dirty    Clean    Dirty    Total     Size    Alloc     Free
                ------   ------   ------   ------   ------   ------   ------   ------
  Native Heap    81234    81200        0        0    82000   120000    81000    39000
   EGL mtrack       64       64        0        0       64
    GL mtrack    51200    51200        0        0    51200
        TOTAL   140000   139000      300        0   150000   120000    81000    39000"""

SUMMARY = """** MEMINFO in pid 2201 [onekv-runner] **
 App Summary
                       Pss(KB)                        Rss(KB)
                        ------                         ------
           Java Heap:        0                              0
         Native Heap:    81200                          82000
            Graphics:    51264                          51264
             Unknown:      512
           TOTAL PSS:   140000            TOTAL RSS:   150000       TOTAL SWAP PSS:        0"""

UNTOLD = {
    "nothing": "",
    "no such process": "No process found for: 2201",
    "refused": "Permission Denial: can't dump meminfo from from pid=9211, uid=2000",
    "a driver without accounting": MEMINFO.replace("51200", "0").replace(" 64", "  0"),
    "no line of it": "** MEMINFO in pid 2201 **\n  Native Heap    81234\n        TOTAL   140000",
    "words for numbers": "   GL mtrack     many     some\n   EGL mtrack    -51200        0",
    "more than a phone has": "   GL mtrack   999999999999        0",
    "twice": "   GL mtrack    51200        0\n   GL mtrack    51200        0",
}
"""What `dumpsys meminfo PID` prints of a process whose GPU memory it does not tell."""

PROPERTIES = {
    "ro.product.name": "caiman",
    "ro.product.model": "Pixel 9 Pro",
    "ro.product.manufacturer": "Google",
    "ro.build.version.release": "16",
    "ro.build.fingerprint": "google/caiman/caiman:16/BP1A.250505.005/13277524:user/release-keys",
    "ro.soc.model": "Tensor G4",
}

PIXEL = Recordings(
    properties=PROPERTIES,
    dumpsys={"battery": BATTERY, "thermalservice": THERMAL, "power": POWER},
    files={
        "/proc/meminfo": "MemTotal:       15898372 kB\nMemFree: 1 kB\nMemAvailable: 9123456 kB\n",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "sched_pixel\n",
    },
)

SILENT = Recordings(files={"/proc/meminfo": "nothing\n"})
"""A phone that tells nothing of itself."""

HOSTILE = Recordings(
    properties={
        "ro.product.model": "\x1b[2J<script>alert(1)</script>" + "x" * 5000,
        "ro.build.version.release": "16\nonekv-part battery\n  level: 7",
    },
    dumpsys={"battery": "  level: 999\n  status: 9", "thermalservice": "Thermal Status: 9"},
    files={"/proc/meminfo": "MemTotal: 99999999999999999999 kB\n"},
)
"""A phone that lies."""
