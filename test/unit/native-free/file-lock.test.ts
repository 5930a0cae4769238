import { acquireFileLock } from '../../../native-free/file-lock.ts';
import { fileLockConformance } from '../../support/file-lock-conformance.ts';

fileLockConformance('stand-in', { acquire: acquireFileLock, native: 'off' });
